import dataclasses
import json
import math
import typing

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": -1},
        {"average_decay": 1.0},
        {"seed": 2**31},
        {"learning_rate": -1.0},
        {"learning_rate_decay": 0.0},
        {"learning_rate_decay": 1.1},
        {"epochs_per_decay": 0.0},
        {"epsilon": 0.0},
        {"label_smoothing": -0.1},
        {"adversarial_weight": -1.0},
        {"raw_weight": float("inf")},
        {"colour_distortion": float("nan")},
    ],
)
def test_impossible_values_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=rf"recipe\.{name}"):
        Recipe(**wrong)


NUMBERS = [
    name for name, kind in typing.get_type_hints(Recipe).items() if kind in (int, float, int | None, float | None)
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1])
@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range(name, value):
    with pytest.raises(InputError, match=rf"recipe\.{name} is {value}; it must be .*(at least|above) \d"):
        Recipe(**{name: value})


LENGTHS = ("steps", "warm_up_steps", "evaluate_every", "checkpoint_every")
STATED = Recipe(
    steps=1000, warm_up_steps=40, evaluate_every=100, checkpoint_every=20, average_decay=0.99, stated_for_batch=64
)


def carried(batch_size, **changes):
    return dataclasses.replace(STATED, batch_size=batch_size, **changes).effective()


def test_a_recipe_that_is_stated_for_its_own_batch_stays_as_it_is():
    assert Recipe().effective() == Recipe()
    assert carried(64) == dataclasses.replace(STATED, stated_for_batch=None)
    assert STATED.batch_ratio == Recipe(batch_size=7).batch_ratio == 1.0
    assert STATED.kept_per_step(0.9997) == 0.9997


def test_four_times_the_batch_takes_a_quarter_of_the_steps_at_four_times_the_rate():
    recipe = carried(256)
    assert [getattr(recipe, name) for name in LENGTHS] == [250, 10, 25, 5]
    assert recipe.learning_rate == pytest.approx(4 * 0.045)
    assert recipe.average_decay == pytest.approx(0.99**4)
    assert dataclasses.replace(STATED, batch_size=256).kept_per_step(0.95) == pytest.approx(0.95**4)
    others = {field.name for field in dataclasses.fields(Recipe)} - {*LENGTHS, "learning_rate", "average_decay"}
    unchanged = others - {"batch_size", "stated_for_batch"}
    assert all(getattr(recipe, name) == getattr(STATED, name) for name in unchanged)
    assert (recipe.batch_size, recipe.stated_for_batch) == (256, None)


@pytest.mark.parametrize(("epsilon", "factor"), [(1.0, 4.0), (0.1, 4.0), (0.001, 4.0), (1e-5, 2.0), (1e-10, 2.0)])
def test_the_rate_grows_with_the_root_of_the_batch_where_a_small_epsilon_normalises(epsilon, factor):
    assert carried(256, epsilon=epsilon).learning_rate == pytest.approx(factor * 0.045)


@pytest.mark.parametrize("batch_size", [1, 16, 48, 63, 65, 100, 256, 1000, 2048, 100_000])
def test_images_are_conserved_but_for_less_than_a_batch(batch_size):
    recipe = carried(batch_size)
    for name in LENGTHS:
        images, stated = getattr(recipe, name) * batch_size, getattr(STATED, name) * 64
        assert stated <= images < stated + batch_size, name


@pytest.mark.parametrize("batch_size", [16, 256, 1024])
def test_rate_per_image_and_average_are_the_same_at_the_same_image(batch_size):
    stated, recipe = dataclasses.replace(STATED, warm_up_steps=0), carried(batch_size, warm_up_steps=0)
    for images in (0, 10 * 1024, 25 * 1024, 50 * 1024):
        rate = learning_rate_at(recipe, images // batch_size, 10_240 / batch_size) / batch_size
        assert rate == pytest.approx(learning_rate_at(stated, images // 64, 160) / 64)
    assert recipe.average_decay ** (10_240 / batch_size) == pytest.approx(STATED.average_decay**160)


def test_a_batch_size_that_no_recipe_can_be_stated_for_is_refused():
    with pytest.raises(InputError, match=r"recipe\.stated_for_batch is 0; it must be at least 1"):
        Recipe(stated_for_batch=0)


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
