"""Everything in k8s/ renders and is what the API's and the CRDs' schemas allow."""

from __future__ import annotations

import pytest

# The oldest that Kubeflow Pipelines 2.17 and KServe 0.21 still name, and the newest there is a schema for.
VERSIONS = ["1.32", "1.37"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects, beside, version):
    found = {beside("rendering").title(item): beside("validation").problems(item, version) for item in objects}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_every_object_has_its_place(objects):
    # Also that rendering leaves nothing out: the folders are few, and this is their content.
    kinds = {item["kind"] for item in objects}
    assert {"Namespace", "ResourceQuota", "LimitRange", "PriorityClass", "NetworkPolicy", "Role"} <= kinds
    assert {"StatefulSet", "Deployment", "PersistentVolumeClaim", "InferenceService", "ServingRuntime"} <= kinds
    for item in objects:
        expected = None if item["kind"] in {"Namespace", "PriorityClass"} else "marco"
        assert item["metadata"].get("namespace") == expected, item


BREAKAGES = {
    "Deployment": lambda item: item["spec"].update(replica=1),
    "StatefulSet": lambda item: item["spec"].update(replicas="one"),
    "NetworkPolicy": lambda item: item["spec"].update(podselector={}),
    "Role": lambda item: item["rules"][0].update(verb=["get"]),
    "InferenceService": lambda item: item["spec"]["predictor"].update(minReplicas="two"),
    "ServingRuntime": lambda item: item["spec"].update(securityContext={"runAsNonRoot": True}),
}


@pytest.mark.parametrize("kind", BREAKAGES)
def test_a_broken_object_is_found(base, beside, kind):
    item = next(item for item in base if item["kind"] == kind)
    assert beside("validation").problems(item, VERSIONS[0]) == []
    BREAKAGES[kind](item)
    assert beside("validation").problems(item, VERSIONS[0])


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"modelFormat": {"name": "tensorflow"}, "uri": "gs://bucket/path"}},
        {"model": {"storageUri": "gs://bucket/path"}},
        {"serviceaccountName": "marco-serving"},
        {"securityContext": {"runAsNonRoot": "yes"}},
        {"scaleMetric": "load"},
    ],
)
def test_a_broken_part_of_a_predictor_is_found(base, beside, change):
    item = beside("rendering").pick(base, "InferenceService")
    item["spec"]["predictor"].update(change)
    assert beside("validation").problems(item, VERSIONS[0])


def test_a_folder_that_does_not_render_says_why(beside, tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    with pytest.raises(RuntimeError, match=r"nothing\.yaml"):
        beside("rendering").render(tmp_path)
