import json

import pytest

from marco_model.errors import InputError
from marco_model.recipe import Recipe, average_decay_at, cluster_from_environment, learning_rate_at

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}


def test_the_rate_falls_by_six_per_cent_every_two_epochs():
    recipe = Recipe()
    assert learning_rate_at(recipe, 0, 100) == learning_rate_at(recipe, 199, 100) == 0.045
    assert learning_rate_at(recipe, 200, 100) == pytest.approx(0.045 * 0.94)
    assert learning_rate_at(recipe, 26_000, 100) == pytest.approx(0.045 * 0.94**130)


def test_the_rate_rises_in_line_to_its_value():
    recipe = Recipe(learning_rate=0.2, warm_up_steps=4)
    rates = [learning_rate_at(recipe, step, 100) for step in range(6)]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])


def test_the_average_is_short_at_first_and_never_longer_than_asked():
    recipe = Recipe(average_decay=0.999)
    assert average_decay_at(recipe, 0) == 0.1
    assert average_decay_at(recipe, 90) == pytest.approx(0.91)
    assert average_decay_at(recipe, 10**6) == 0.999


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": -1}, {"average_decay": 1.0}, {"label_smoothing": -0.1}])
def test_impossible_values_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=rf"recipe\.{name}"):
        Recipe(**wrong)


@pytest.mark.parametrize("share", [(0.0, 1.0), (0.9, 0.7), (0.5, 1.1), (-0.5, 0.5), (float("nan"), 1.0)])
def test_impossible_shares_are_refused(share):
    with pytest.raises(InputError, match=r"recipe\.window_share is \[.*\]; give the smallest and the largest"):
        Recipe(window_share=share)


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
