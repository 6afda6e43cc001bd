import json

import pytest

from marco_model.errors import InputError
from marco_model.recipe import cluster_from_environment

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}


def set_cluster(monkeypatch, cluster, job, index):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": job, "index": index}}))


def test_the_chief_leads_or_else_the_first_worker(monkeypatch):
    for cluster, job, index, leads in (
        (CLUSTER, "chief", 0, True),
        (CLUSTER, "worker", 0, False),
        ({"worker": ["a:1", "b:1"]}, "worker", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, False),
    ):
        set_cluster(monkeypatch, cluster, job, index)
        assert cluster_from_environment("multi_worker", ["worker"]).leads is leads


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_variable_that_describes_no_cluster_is_refused_with_its_text(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=r"TF_CONFIG is .*expected the JSON of TensorFlow's clusters"):
        cluster_from_environment("multi_worker", ["worker"])


def test_a_missing_variable_or_job_is_named(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match=r"engine\.kind is multi_worker and TF_CONFIG is not set"):
        cluster_from_environment("multi_worker", ["worker"])
    set_cluster(monkeypatch, {"worker": ["a:1"]}, "worker", 0)
    with pytest.raises(InputError, match="names no chief and no ps"):
        cluster_from_environment("parameter_server", ["chief", "worker", "ps"])
