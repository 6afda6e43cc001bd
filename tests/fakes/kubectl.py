"""A stand-in for kubectl and the API server behind it, for tests/cluster where there is no cluster.

It knows what those tests ask for: objects are held against the schemas of Kubernetes and of the custom resources, pods
against the restricted standard and the quota of their namespace, JobSets also against two rules of JobSet's webhook
(kubernetes-sigs/jobset v0.12.0, `pkg/webhooks/jobset_webhook.go`), and a service account may do what the Roles that are
bound to it grant (kubernetes/api v0.36.0, `rbac/v1/types.go`: `PolicyRule`, `Subject`; no `*` is known here).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from tests.k8s import policy, restricted, validation

Item = dict[str, Any]
VERSION = "1.32"
KINDS = ("jobsets.jobset.x-k8s.io", "inferenceservices.serving.kserve.io", "servingruntimes.serving.kserve.io")


class Answer(NamedTuple):
    """What a command gave."""

    status: int
    output: str
    error: str


class Kubectl:
    """The commands `apply`, `create`, `delete`, `api-resources` and `auth can-i`, over objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Item] = {}

    def run(self, *arguments: str, text: str = "") -> Answer:
        """Returns what `kubectl ARGUMENTS` gives, with `text` as its standard input."""
        if arguments[0] in {"apply", "create"}:
            return self._store(yaml.safe_load(text), "--dry-run=server" in arguments)
        if arguments[0] == "delete":
            kind, name = arguments[1:3]
            for key in [key for key in self.objects if key[2] == name or (kind == "namespace" and key[1] == name)]:
                del self.objects[key]
            return Answer(0, "", "")
        if arguments[0] == "api-resources":
            return Answer(0, "\n".join(KINDS), "")
        if arguments[:2] == ("auth", "can-i"):
            options = dict(argument.split("=", 1) for argument in arguments if argument.startswith("--"))
            verb, resource = arguments[2:4]
            part = options.get("--subresource")
            allowed = self._may(options["--as"], options["--namespace"], verb, resource, part or "")
            return Answer(0 if allowed else 1, "yes" if allowed else "no", "")
        raise NotImplementedError(arguments)

    def _store(self, item: Item, dry: bool) -> Answer:
        problems = [*validation.problems(item, VERSION), *self._admission(item)]
        if problems:
            return Answer(1, "", f"Error from server: {'; '.join(problems)}")
        metadata = item["metadata"]
        if not dry:
            self.objects[item["kind"], metadata.get("namespace", ""), metadata["name"]] = item
        return Answer(0, f"{item['kind']}/{metadata['name']} created", "")

    def _admission(self, item: Item) -> list[str]:
        if item["kind"] == "JobSet":
            return _webhook(item)
        if item["kind"] != "Pod":
            return []
        namespace, spec = item["metadata"]["namespace"], item["spec"]
        labels = self.objects["Namespace", "", namespace]["metadata"].get("labels", {})
        problems = []
        if labels.get("pod-security.kubernetes.io/enforce") == "restricted":
            found = policy.findings(restricted.RESTRICTED, iter([("pod", item)]))
            problems += [f'violates PodSecurity "restricted:latest": {found}'] if found else []
        account = spec.get("serviceAccountName", "default")
        if account != "default" and ("ServiceAccount", namespace, account) not in self.objects:
            problems.append(f"error looking up service account {namespace}/{account}: not found")
        for quota in self._of("ResourceQuota", namespace):
            cores = sum(_cores(container["resources"]["requests"]["cpu"]) for container in spec["containers"])
            if cores > _cores(quota["spec"]["hard"]["requests.cpu"]):
                problems.append(f"exceeded quota: {quota['metadata']['name']}, requested: requests.cpu={cores}")
        return problems

    def _of(self, kind: str, namespace: str) -> list[Item]:
        return [item for key, item in self.objects.items() if key[:2] == (kind, namespace)]

    def _may(self, user: str, namespace: str, verb: str, resource: str, part: str) -> bool:
        account = dict(zip(("namespace", "name"), user.split(":")[2:], strict=True))
        resource, _, name = resource.partition("/")
        resource, _, group = resource.partition(".")
        resource = f"{resource}/{part}" if part else resource
        bound = {
            binding["roleRef"]["name"]
            for binding in self._of("RoleBinding", namespace)
            if any(account | {"kind": "ServiceAccount"} == subject for subject in binding["subjects"])
        }
        return any(
            verb in rule["verbs"]
            and resource in rule["resources"]
            and group in rule["apiGroups"]
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for role in self._of("Role", namespace)
            if role["metadata"]["name"] in bound
            for rule in role["rules"]
        )


def _cores(quantity: Any) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _webhook(item: Item) -> list[str]:
    spec = item["spec"]
    names = {job["name"] for job in spec["replicatedJobs"]}
    policies = [("", spec.get("successPolicy", {}).get("targetReplicatedJobs", []))]
    for rule in spec.get("failurePolicy", {}).get("rules", []):
        policies.append((" in failure policy", rule.get("targetReplicatedJobs", [])))
    return [
        f"invalid replicatedJob name '{name}'{place} does not appear in .spec.ReplicatedJobs"
        for place, targets in policies
        for name in targets
        if name not in names
    ]
