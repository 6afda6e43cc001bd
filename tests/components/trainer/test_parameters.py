import json

import pytest

from components.trainer.parameters import NAMES, TrainingParameters, into_config, steps
from marco_model.errors import InputError

CONFIG = {"recipe": {"steps": 700, "seed": 0}, "classes": ["Clear", "Crystals"]}
GIVEN = {"source": "gs://bucket/marco", "fingerprint": "0a", "initial": "random", "steps": ""}


def merged(**changes):
    properties = {"run_fn": "f", "custom_config": json.dumps(CONFIG), **GIVEN, **changes}
    return into_config(properties)


def test_parameters_stand_where_the_training_looks_for_them():
    properties = merged()
    assert set(properties) == {"run_fn", "custom_config"}
    assert json.loads(properties["custom_config"]) == {
        **CONFIG,
        "data": {"source": "gs://bucket/marco", "fingerprint": "0a"},
        "initial": "random",
    }


def test_steps_that_are_given_replace_the_recipes():
    assert json.loads(merged(steps="20")["custom_config"])["recipe"] == {"steps": 20, "seed": 0}


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "many", " 5"])
def test_steps_that_are_no_number_are_refused(text):
    with pytest.raises(InputError, match="give a whole number above 0"):
        steps(text)


def test_every_parameter_is_declared():
    assert set(TrainingParameters("a", "b").values()) == set(NAMES) == set(GIVEN)
