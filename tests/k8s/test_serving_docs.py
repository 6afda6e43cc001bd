"""The manifest in docs/serving.md passes the schemas and is as restricted as k8s/serving/serving.yaml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.k8s import validation

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture
def service():
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return yaml.safe_load(text)


@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_the_manifest_is_valid(service, base, version):
    predictor = service["spec"]["predictor"]
    containers, volumes = predictor.pop("containers"), predictor["volumes"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
    assert validation.problems({**pod, "spec": {"containers": containers, "volumes": volumes}}, version) == []
    # KServe accepts `containers` or `model`; the schema here is reduced to `model`.
    predictor["model"] = next(item for item in base if item["kind"] == "InferenceService")["spec"]["predictor"]["model"]
    assert validation.problems(service, version) == []


def test_the_documented_manifest_differs_from_the_base_in_the_container_alone(service, base):
    (ours,) = (item for item in base if item["kind"] == "InferenceService")
    assert service["metadata"]["name"] == ours["metadata"]["name"]
    shared = {key: value for key, value in ours["spec"]["predictor"].items() if key != "model"}
    predictor = service["spec"]["predictor"]
    assert {key: predictor[key] for key in shared} == shared
    (runtime,) = (item for item in base if item["kind"] == "ServingRuntime")
    (container,) = predictor["containers"]
    restricted = runtime["spec"]["containers"][0]["securityContext"]
    assert {key: container["securityContext"][key] for key in restricted if key != "seccompProfile"} == {
        key: value for key, value in restricted.items() if key != "seccompProfile"
    }
    assert container["command"][:2] == ["marco", "serve"]


def test_no_page_names_an_image_of_a_registry_by_a_tag_that_moves():
    pages = [DOCS.parents[1] / "README.md", *DOCS.parent.glob("*.md"), *(DOCS.parents[1] / "k8s").rglob("*.*")]
    assert len(pages) > 30
    assert not [page.name for page in pages if re.search(r"(?<!localhost)/[\w-]+:latest\b", page.read_text())]
