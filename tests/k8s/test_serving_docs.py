"""The manifest in docs/serving.md is what KServe and Kubernetes allow, and as careful as k8s/base/serving.yaml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture
def service():
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return yaml.safe_load(text)


@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_the_manifest_is_valid(service, base, beside, version):
    problems = beside("validation").problems
    predictor = service["spec"]["predictor"]
    containers, volumes = predictor.pop("containers"), predictor["volumes"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
    assert problems({**pod, "spec": {"containers": containers, "volumes": volumes}}, version) == []
    # KServe has one of the two, and its schema here is reduced to the one with `model`.
    predictor["model"] = next(item for item in base if item["kind"] == "InferenceService")["spec"]["predictor"]["model"]
    assert problems(service, version) == []


def test_it_differs_from_the_base_in_what_serves_alone(service, base):
    (ours,) = (item for item in base if item["kind"] == "InferenceService")
    assert service["metadata"]["name"] == ours["metadata"]["name"]
    told = {key: value for key, value in ours["spec"]["predictor"].items() if key != "model"}
    found = service["spec"]["predictor"]
    assert {key: found[key] for key in told} == told
    (runtime,) = (item for item in base if item["kind"] == "ServingRuntime")
    (container,) = found["containers"]
    careful = runtime["spec"]["containers"][0]["securityContext"]
    assert {key: container["securityContext"][key] for key in careful if key != "seccompProfile"} == {
        key: value for key, value in careful.items() if key != "seccompProfile"
    }
    assert container["command"][:2] == ["marco", "serve"]
