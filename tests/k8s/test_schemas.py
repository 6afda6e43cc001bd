"""Everything in k8s/ renders, and the schemas of the API and of the CRDs accept it."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.k8s import rendering, validation

# The oldest that Kubeflow Pipelines 2.17 and KServe 0.21 still support, and the newest that has a schema here.
VERSIONS = ["1.32", "1.37"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects, version):
    problems = {rendering.title(item): validation.problems(item, version) for item in objects}
    assert {name: found for name, found in problems.items() if found} == {}


def test_every_kind_is_rendered_into_its_namespace(objects):
    # Shows too that rendering leaves nothing out.
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
def test_a_broken_object_is_refused(base, kind):
    item = next(item for item in base if item["kind"] == kind)
    assert validation.problems(item, VERSIONS[0]) == []
    BREAKAGES[kind](item)
    assert validation.problems(item, VERSIONS[0])


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
def test_a_broken_predictor_is_refused(base, change):
    item = rendering.pick(base, "InferenceService")
    item["spec"]["predictor"].update(change)
    assert validation.problems(item, VERSIONS[0])


def test_the_profile_of_the_readme_is_that_of_the_namespace(base):
    text = (rendering.K8S / "README.md").read_text()
    profile = yaml.safe_load(re.search(r"<<EOF\n(.*?)EOF", text, re.DOTALL)[1])
    assert validation.problems(profile, VERSIONS[0]) == []
    assert profile["metadata"]["name"] == rendering.pick(base, "Namespace")["metadata"]["name"]
    profile["spec"]["owners"] = []
    assert validation.problems(profile, VERSIONS[0])


def test_the_reason_is_raised_for_a_folder_that_does_not_render(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    with pytest.raises(RuntimeError, match=r"nothing\.yaml"):
        rendering.render(tmp_path)
