"""The cluster that KUBECONFIG names (`make test-cluster`); without it a stand-in for its API server."""

from __future__ import annotations

import copy
import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.fakes import kubectl as fake
from tests.k8s import rendering

ENABLED = "MARCO_TEST_CLUSTER"


class Kubectl:
    """The environment's kubectl, on the cluster that KUBECONFIG names."""

    def run(self, *arguments: str, text: str = "") -> fake.Answer:
        """Returns what `kubectl ARGUMENTS` gives, with `text` as its standard input."""
        command = [rendering.kubectl(), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, check=False)
        return fake.Answer(done.returncode, done.stdout, done.stderr)


def moved(objects: list[dict], namespace: str) -> list[dict]:
    """Returns the objects as they are in another namespace than `marco`."""
    text = yaml.safe_dump_all(copy.deepcopy(objects)).replace(
        "s3://mlpipeline/private/marco/", f"s3://mlpipeline/private/{namespace}/"
    )
    items = list(yaml.safe_load_all(text))
    for item in items:
        if item["kind"] == "Namespace":
            item["metadata"]["name"] = namespace
        elif "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
        for subject in item.get("subjects", []):
            subject["namespace"] = namespace
    return items


def apply(kubectl: fake.Kubectl | Kubectl, item: dict, *options: str) -> fake.Answer:
    """Returns what the server says to an object; `--dry-run=server` leaves nothing behind."""
    return kubectl.run(
        "apply", "--server-side", "--validate=strict", *options, "--filename=-", text=yaml.safe_dump(item)
    )


@pytest.fixture(scope="session")
def kubectl() -> fake.Kubectl | Kubectl:
    if ENABLED not in os.environ:
        return fake.Kubectl()
    assert os.environ.get("KUBECONFIG"), "set KUBECONFIG to the cluster to test on; kubectl's default may be any"
    return Kubectl()


@pytest.fixture(scope="module")
def namespace(kubectl) -> Iterator[str]:
    """A restricted namespace of its own with the accounts, roles and quota of k8s/, taken away at the end."""
    name = f"marco-test-{secrets.token_hex(3)}"
    try:
        for kind in ("Namespace", "ServiceAccount", "Role", "RoleBinding", "ResourceQuota", "LimitRange"):
            for item in moved(rendering.render("overlays/small"), name):
                if item["kind"] == kind:
                    answer = apply(kubectl, item)
                    assert answer.status == 0, answer.error
        yield name
    finally:
        kubectl.run("delete", "namespace", name, "--wait=false", "--ignore-not-found")
