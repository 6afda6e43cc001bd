"""What a compiled package asks for, what the checks of a place say of it, one line each, and how they are run."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components import machines
from marco_model import errors

FINE, WRONG, UNSEEN = "fine", "wrong", "not visible"
Object = dict[str, Any]
Lines = Iterator[tuple[str, str]]
"""A state and a text each."""


class Finding(NamedTuple):
    """A line of the report: `state` is `FINE`, `WRONG` or `UNSEEN`; `text` has what is there and, if wrong, the fix."""

    subject: str
    state: str
    text: str


class HiddenError(Exception):
    """The user may not read this."""


class Needs(NamedTuple):
    """Containers and Kubernetes' settings by step, the settings of the Trainer and the EndpointPusher, and places.

    `settings` is empty for Vertex AI, `endpoint` where nothing is deployed. `root`: the URI of the artifacts, "" where
    Kubeflow chooses. `buckets`: the names of all buckets on `gs://` that the package names. `written`: the URIs on
    `gs://`, beside the root, that steps write: the models' and that of MLflow's artifacts. `content`: the file's.
    """

    containers: dict[str, Object]
    settings: dict[str, Object]
    training: Object
    endpoint: Object
    root: str
    buckets: tuple[str, ...]
    written: tuple[str, ...]
    content: str

    @property
    def replicas(self) -> machines.Replicas | None:
        """Returns `cluster.replicas` of the package, None where the Trainer trains by itself."""
        replicas = (self.training.get("placement") or {}).get("replicas")
        return machines.Replicas.model_validate(replicas) if replicas else None

    @property
    def tracking(self) -> str:
        """Returns MLflow's URI."""
        return str(self.training["tracking"]["uri"])

    def all_settings(self, field: str) -> list[Object]:
        """Returns the entries of a list that the settings of any step have, each once."""
        entries = (entry for settings in self.settings.values() for entry in settings.get(field, []))
        return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())

    def images(self) -> list[str]:
        """Returns the images of the steps."""
        return sorted({container["image"] for container in self.containers.values()})


def read(package: Path) -> Needs:
    """Reads a package that `marco compile` wrote; raises `InputError` for another file."""
    advice = f"{package} is not a compiled pipeline; give the file that marco compile wrote ({{}})"
    kinds = (OSError, ValueError, KeyError, TypeError, yaml.YAMLError)
    with errors.translated(errors.InputError, advice, *kinds):
        content = package.read_text()
        spec, *platform = [json.loads(content)] if package.suffix == ".json" else yaml.safe_load_all(content)
        tasks, executors = spec["root"]["dag"]["tasks"], spec["deploymentSpec"]["executors"]
        settings = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
        training = json.loads(_constant(tasks["Trainer"], "training"))
        pushed = _constant(tasks["Pusher"], "destination") if "Pusher" in tasks else ""
        written = {pushed, training["tracking"].get("artifacts") or ""}
        return Needs(
            containers={step: executors[f"{step}_executor"]["container"] for step in tasks},
            settings={step: settings[f"{step}_executor"] for step in tasks} if platform else {},
            training=training,
            endpoint=json.loads(_constant(tasks["EndpointPusher"], "endpoint")) if "EndpointPusher" in tasks else {},
            root=spec.get("defaultPipelineRoot", ""),
            buckets=tuple(sorted(set(re.findall(r"gs://([a-z0-9][\w.-]+)", content)))),
            written=tuple(sorted(uri.rstrip("/") for uri in written if uri.startswith("gs://"))),
            content=content,
        )


def _constant(task: Object, parameter: str) -> str:
    return str(task["inputs"]["parameters"][parameter]["runtimeValue"]["constant"])


def image_digests(needs: Needs) -> Lines:
    """Says of each image whether it stays the same and can be pulled from elsewhere, by its name."""
    for image in needs.images():
        tagged = (
            f"{image} has no digest: behind a tag it can change, and finished steps would be reused; compile with it"
        )
        local = f"{image} is of this machine alone; push it, and compile with --image REGISTRY/…@sha256:…"
        wrong = local if image.startswith("localhost/") else "" if "@sha256:" in image else tagged
        yield (WRONG, wrong) if wrong else (FINE, image)


def accelerators(needs: Needs) -> dict[str, tuple[str, int]]:
    """Returns type and number of the accelerators that each step asks for, of those that do."""
    resources = {step: container["resources"].get("accelerator") for step, container in needs.containers.items()}
    return {step: (item["type"], int(item["count"])) for step, item in resources.items() if item}


def collect(checks: Mapping[str, Callable[[Any, Needs], Lines]], place: Any, needs: Needs) -> list[Finding]:
    """Returns the findings of all checks, in order; raises `ClusterError` if the service fails.

    `checks` take the API of a place and what a package needs of it.
    """
    findings = []
    for subject, check in checks.items():
        try:
            for state, text in check(place, needs):  # One by one: what comes before something hidden is kept.
                findings.append(Finding(subject, state, text))
        except HiddenError as error:
            findings.append(Finding(subject, UNSEEN, f"you may not read this ({error}); ask who runs it"))
    return findings
