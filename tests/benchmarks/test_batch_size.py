import argparse
import json

import pytest

from benchmarks import batch_size
from pipelines import configuration


def options(**changes):
    defaults = {
        "stated_for": 64,
        "batch_size": 256,
        "steps": 1200,
        "learning_rate": 0.02,
        "epsilon": 0.1,
        "train": 6400,
        "alternatives": False,
    }
    return argparse.Namespace(**defaults | changes)


def test_the_regime_is_that_of_the_preset():
    preset, stated = configuration.load("gpu").recipe, batch_size.stated_recipe(options())
    for name in ("epsilon", "rho", "momentum", "label_smoothing", "weight_decay", "augment", "window_share"):
        assert getattr(stated, name) == getattr(preset, name), name
    assert (preset.stated_for_batch, preset.batch_size) == (64, 256)


def test_the_rate_falls_to_the_share_that_is_stated():
    stated = batch_size.stated_recipe(options())
    epochs = 1200 * 64 / 6400
    assert stated.learning_rate_decay ** (epochs / stated.epochs_per_decay) == pytest.approx(batch_size.LAST_RATE)


@pytest.mark.parametrize(
    ("epsilon", "rates"),
    [
        (0.1, {"by the rule": 0.08, "rate square root": 0.04, "rate as stated": 0.02}),
        (1e-5, {"by the rule": 0.04, "rate linear": 0.08, "rate as stated": 0.02}),
    ],
)
def test_alternatives_differ_in_the_rate_alone(epsilon, rates):
    stated, *others = batch_size.recipes(options(epsilon=epsilon, alternatives=True)).items()
    assert stated[1].effective() is stated[1]
    assert {name: recipe.effective().learning_rate for name, recipe in others} == pytest.approx(rates)
    for _, recipe in others:
        assert (recipe.effective().steps, recipe.batch_size) == (300, 256)
    assert list(batch_size.recipes(options())) == ["as stated", "by the rule"]


@pytest.mark.long
@pytest.mark.slow
def test_both_batch_sizes_train_and_every_seed_is_reported(capsys):
    sizes = ["--stated-for", "4", "--batch-size", "8", "--steps", "4", "--train", "16", "--eval", "8"]
    batch_size.main([*sizes, "--seeds", "1", "2"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    by_seed = answer["by_seed"]
    assert {name: len(values) for name, values in by_seed.items()} == {"as stated": 2, "by the rule": 2}
    assert answer["ours"] == pytest.approx(sum(by_seed["by the rule"]) / 2, abs=1e-4)
    assert answer["peer"] == pytest.approx(sum(by_seed["as stated"]) / 2, abs=1e-4)
    assert answer["unit"] == "accuracy"
