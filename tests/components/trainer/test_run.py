import copy
import types

import pytest

from components.trainer.run import run_fn, training_key
from marco_model.errors import InputError

CONFIG = {
    "classes": ["Clear", "Crystals"],
    "network": {"variant": "paper"},
    "recipe": {"steps": 10},
    "transform": {"shorter_side": 0},
    "data": {"source": "a", "fingerprint": "1"},
    "tracking": {"uri": "sqlite:///x"},
}


def test_the_same_recipe_on_the_same_data_is_the_same_training():
    assert training_key(CONFIG, "graph/1", "random") == training_key(copy.deepcopy(CONFIG), "graph/1", "random")
    elsewhere = {**CONFIG, "tracking": {"uri": "http://server"}}
    assert training_key(CONFIG, "graph/1", "random") == training_key(elsewhere, "graph/1", "random")


def test_other_classes_recipe_network_or_data_are_another_training():
    keys = {training_key(CONFIG, "graph/1", "random"), training_key(CONFIG, "graph/2", "random")}
    for section, change in (
        ("classes", ["Crystals", "Clear"]),
        ("network", {"variant": "released"}),
        ("recipe", {"steps": 11}),
        ("data", {"source": "b"}),
    ):
        keys.add(training_key({**CONFIG, section: change}, "graph/1", "random"))
    assert len(keys) == 6


def test_other_weights_to_begin_from_are_another_training_wherever_they_lie():
    here, there = ({**CONFIG, "network": {"variant": "paper", "initial": place}} for place in ("models/1", "copies/1"))
    assert training_key(here, "graph/1", "0a") == training_key(there, "graph/1", "0a")
    assert training_key(here, "graph/1", "0a") != training_key(here, "graph/1", "0b")


def test_a_model_that_changed_since_the_run_began_is_not_begun_from():
    arguments = types.SimpleNamespace(
        custom_config={**CONFIG, "network": {"initial": "released"}, "initial": "0a"},
        transform_graph_path="graph/1",
        hyperparameters=None,
    )
    with pytest.raises(InputError, match="the model in released has changed since this run began"):
        run_fn(arguments)
