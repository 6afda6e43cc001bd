"""What JobSet's webhook refuses, and what its controller does when a Job fails.

Read from kubernetes-sigs/jobset v0.12.0: `pkg/webhooks/jobset_webhook.go` (`ValidateCreate`, `validateFailurePolicy`),
`pkg/controllers/failure_policy.go` (`findFirstFailedPolicyRuleAndJob`) and `api/jobset/v1alpha2/jobset_types.go`; and,
for `podFailurePolicy`, from kubernetes/api v0.36.0, `batch/v1/types.go` (`PodFailurePolicyRule`, `JobReason…`). That a
condition needs its status is the rule of Kubernetes up to 1.34; newer versions take it for `True`.
"""

from __future__ import annotations

import re

REASONS = {"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"}
_ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
_LABEL, _RULE = r"[a-z]([-a-z0-9]*[a-z0-9])?", r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"


def problems(jobset: dict) -> list[str]:
    """Returns what the webhooks of JobSet and the validation of Job refuse beyond their schemas."""
    spec, name = jobset["spec"], jobset["metadata"]["name"]
    jobs = {job["name"]: job for job in spec["replicatedJobs"]}
    found = [f"{spec['network']['subdomain']} is not a DNS label"] * (not _is_label(spec["network"]["subdomain"]))
    for job in jobs.values():
        longest = f"{name}-{job['name']}-{job['replicas'] - 1}"
        # The index of the pod in its Job and five random characters follow in the names of pods.
        if not _is_label(f"{longest}-{job['template']['spec']['completions'] - 1}-abcde"):
            found.append(f"the pods of {longest} have names that are not DNS labels of at most 63 characters")
        found += [f"{job['name']}: {problem}" for problem in _pod_failure_problems(job["template"]["spec"])]
    found += [f"there is no job {job}" for job in spec["successPolicy"]["targetReplicatedJobs"] if job not in jobs]
    rules = spec["failurePolicy"].get("rules", [])
    names = [rule["name"] for rule in rules]
    found += ["names of rules are not unique"] * (len(set(names)) < len(names))
    for rule in rules:
        if not re.fullmatch(_RULE, rule["name"]) or len(rule["name"]) > 128:
            found.append(f"{rule['name']!r} is not a name of a rule")
        if rule["action"] not in _ACTIONS:  # RestartJob is behind a feature gate.
            found.append(f"{rule['action']} is not an action")
        found += [
            f"{reason} is not a reason" for reason in rule.get("onJobFailureReasons", []) if reason not in REASONS
        ]
        found += [f"there is no job {job}" for job in rule.get("targetReplicatedJobs", []) if job not in jobs]
    return found


def _is_label(text: str) -> bool:
    return len(text) <= 63 and re.fullmatch(_LABEL, text) is not None


def _pod_failure_problems(job: dict) -> list[str]:
    rules = job.get("podFailurePolicy", {}).get("rules", [])
    found = []
    if rules and job["template"]["spec"]["restartPolicy"] != "Never":
        found.append("podFailurePolicy needs restartPolicy Never")
    for rule in rules:
        if rule["action"] not in ("FailJob", "Ignore", "Count"):
            found.append(f"{rule['action']} is not an action of podFailurePolicy here")
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            found.append("a rule of podFailurePolicy has either onExitCodes or onPodConditions")
        if any("status" not in item for item in rule.get("onPodConditions", [])):
            found.append("onPodConditions needs a status")
    return found


def failure_reason(spec: dict, job: str, disrupted: bool) -> str:
    """Returns the reason why a Job failed whose pod failed, or "" where the pod is replaced without being counted."""
    (template,) = [item["template"]["spec"] for item in spec["replicatedJobs"] if item["name"] == job]
    for rule in template.get("podFailurePolicy", {}).get("rules", []):
        if disrupted and any(item["type"] == "DisruptionTarget" for item in rule.get("onPodConditions", [])):
            return {"FailJob": "PodFailurePolicy", "Ignore": "", "Count": "BackoffLimitExceeded"}[rule["action"]]
    return "BackoffLimitExceeded"


def action(policy: dict, reasons: set[str]) -> str:
    """Returns what JobSet does when Jobs have failed for `reasons`: what the first rule that one of them meets says."""
    for rule in policy.get("rules", []):
        if not rule.get("onJobFailureReasons") or reasons & set(rule["onJobFailureReasons"]):
            return rule["action"]
    return "RestartJobSet"
