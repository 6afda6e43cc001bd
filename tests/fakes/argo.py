"""What Argo Workflows decides about a step's pods, as Kubeflow Pipelines installs and uses it.

Read from:

- argoproj/argo-workflows v3.7.3 and v4.0.5, `workflow/controller/operator.go`: `processNodeRetries` (the two agree),
  `inferFailedReason`, `podReconciliation`, `mergedTemplateDefaultsInto`; `RetryPolicyActual` in
  `pkg/apis/workflow/v1alpha1/workflow_types.go`.
- kubeflow/pipelines 2.15.0, 2.16.1 and 2.17.0: Argo's version in `go.mod`; `templateDefaults` in
  `manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml`, which 2.17.0 is the first to
  have; `getTaskRetryStrategyFromInput` in `backend/src/v2/compiler/argocompiler/container.go`, which writes limit and
  backoff and no policy; `cmd/launcher-v2/main.go`, which ends with 1 whatever the step's exit status was.
"""

from __future__ import annotations

from typing import NamedTuple

DEFAULTS = {
    "2.15.0": {},
    "2.16.1": {},
    "2.17.0": {"limit": 2, "retryPolicy": "OnError"},
}
"""`templateDefaults.retryStrategy` by version of Kubeflow Pipelines."""


class Pod(NamedTuple):
    """A pod at its end: seconds of start and end; the exit status of its container `main`, None while that runs.

    `message`: what Kubernetes writes into the pod's status, such as at an eviction. `missing`: it was deleted, as with
    its node, before Argo saw an end.
    """

    started: float = 0.0
    finished: float = 0.0
    main: int | None = None
    message: str = ""
    missing: bool = False


def phase(pod: Pod) -> str:
    """Returns the phase of the node of a pod that did not succeed."""
    if pod.missing:
        return "Error"
    # A message, an exit status other than 0 of `main`, and neither of them: all three are failures.
    return "Failed"


def strategy(version: str, task: dict) -> dict:
    """Returns the retry strategy of a compiled task's pods; times in seconds."""
    policy = task.get("retryPolicy")
    if not policy:
        return DEFAULTS[version]
    seconds = {name: float(policy[name].removesuffix("s")) for name in ("backoffDuration", "backoffMaxDuration")}
    own = {
        "limit": policy["maxRetryCount"],
        "backoff": {
            "duration": seconds["backoffDuration"],
            "factor": policy["backoffFactor"],
            "maxDuration": seconds["backoffMaxDuration"],
        },
    }
    return DEFAULTS[version] | own


def decision(retry: dict, pods: list[Pod]) -> tuple[bool, str]:
    """Returns whether Argo starts another pod after the last of `pods`, which did not succeed, and why not."""
    last = pods[-1]
    if backoff := retry.get("backoff"):
        deadline = pods[0].started + backoff["maxDuration"]
        if last.finished > deadline:
            return False, "Max duration limit exceeded"
        waiting = backoff["duration"] * backoff["factor"] ** (len(pods) - 1)
        if last.finished + waiting > deadline:
            return False, "Backoff would exceed max duration limit"
    policy = retry.get("retryPolicy", "OnFailure")
    retried = {"OnFailure": {"Failed"}, "OnError": {"Error"}, "Always": {"Failed", "Error"}}[policy]
    if phase(last) not in retried:
        return False, "Node not set to be retried"
    if len(pods) > retry["limit"]:
        return False, "No more retries left"
    return True, ""
