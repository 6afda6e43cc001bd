import pytest

from components.settings import Tuning, kind_of, parse
from marco_model.errors import InputError

RATE = {"recipe.learning_rate": {"min": 1e-4, "max": 1e-1, "sampling": "log"}}


def test_the_kind_of_a_value_is_that_of_the_field():
    assert kind_of("recipe.batch_size") is int
    assert kind_of("recipe.momentum") is float
    assert kind_of("network.initial") is str


@pytest.mark.parametrize(
    "space, message",
    [
        ({}, "tuning.space is empty"),
        ({"recipe.depth": {"choices": [1]}}, "'recipe.depth'; give a field of recipe or network"),
        ({"momentum": {"choices": [1]}}, "'momentum'; give a field of recipe or network"),
        ({"recipe.momentum": {"min": 0.5}}, "give both limits, or choices"),
        ({"recipe.momentum": {"min": 0.5, "max": 0.9, "choices": [0.6]}}, "give both limits, or choices"),
        ({"recipe.momentum": {"min": 0.9, "max": 0.5}}, "min must be smaller"),
        ({"recipe.momentum": {"min": 0.5, "max": 1.0}}, r"tuning.space, recipe.momentum: recipe\.momentum is 1\.0"),
        ({"recipe.learning_rate": {"min": 0.0, "max": 1.0, "sampling": "log"}}, "min must be above 0"),
        ({"network.initial": {"min": 0, "max": 1}}, "is not a number; give choices"),
        ({"network.architecture": {"choices": ["vgg"]}}, "network.architecture is 'vgg'"),
    ],
)
def test_a_parameter_that_cannot_be_searched_is_named(space, message):
    with pytest.raises(InputError, match=message):
        parse(Tuning, {"space": space}, "here", "tuning")


def test_vizier_needs_to_know_where_it_is():
    with pytest.raises(InputError, match=r"give tuning\.project and tuning\.region"):
        parse(Tuning, {"space": RATE, "oracle": "vizier"}, "here", "tuning")
    assert Tuning(space=RATE, oracle="vizier", project="p", region="r").space["recipe.learning_rate"].max == 1e-1
