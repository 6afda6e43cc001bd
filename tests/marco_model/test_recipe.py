import pytest

from marco_model.errors import InputError
from marco_model.recipe import Recipe, average_decay_at, learning_rate_at


def test_the_rate_falls_by_six_per_cent_every_two_epochs():
    recipe = Recipe()
    assert learning_rate_at(recipe, 0, 100) == learning_rate_at(recipe, 199, 100) == 0.045
    assert learning_rate_at(recipe, 200, 100) == pytest.approx(0.045 * 0.94)
    assert learning_rate_at(recipe, 26_000, 100) == pytest.approx(0.045 * 0.94**130)


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
