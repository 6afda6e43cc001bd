import dataclasses
import os
import threading

import keras
import numpy as np
import pytest

from marco_model import checkpoints, example_files, layers, store, training, training_input
from marco_model.errors import InputError
from marco_model.recipe import Engine
from tests.marco_model import small_problem
from tests.marco_model.small_problem import RECIPE, SIZE, network, network_with_raw_head

HEADS = dataclasses.replace(RECIPE, adversarial_weight=1.0, raw_weight=0.5, unlabelled=("CSIRO",))


def with_targets(records, recipe=HEADS):
    targets = example_files.find_targets(recipe, records["train_records"].files)
    return {name: dataclasses.replace(index, targets=targets) for name, index in records.items()}


def train(records, folder, recipe=RECIPE, **options):
    model = network_with_raw_head() if recipe.raw_weight else network()
    result = training.train(model, recipe, input_size=SIZE, checkpoint_directory=str(folder), **records, **options)
    return model, result


def test_training_learns_and_leaves_the_best_averaged_weights_in_the_model(records, tmp_path):
    curves = {}
    model, result = train(
        records, tmp_path, on_metrics=lambda step, metrics: curves.update({(step, k): v for k, v in metrics.items()})
    )
    images, labels = next(
        iter(training_input.evaluation_batches(records["validation_records"], size=SIZE, batch_size=20))
    )
    accuracy = np.mean(np.argmax(model(images, training=False), axis=-1) == labels)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.accuracy == max(v for (_, name), v in curves.items() if name == "validation/accuracy")
    assert {(past.step, past.loss) for past in result.history} == {
        (step, value) for (step, name), value in curves.items() if name == "validation/loss"
    }
    assert accuracy >= 0.9
    assert result.steps == 24


@pytest.mark.long
def test_a_recipe_stated_for_another_batch_trains_as_the_one_that_the_rule_makes_of_it(records, tmp_path):
    stated = dataclasses.replace(RECIPE, steps=48, stated_for_batch=4)
    carried, result = train(records, tmp_path / "stated", stated)
    written_out, _ = train(records, tmp_path / "effective", stated.effective())
    assert result.steps == 24
    for left, right in zip(carried.get_weights(), written_out.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "with_heads", [pytest.param(False, id="plain"), pytest.param(True, id="heads", marks=pytest.mark.long)]
)
def test_resumed_training_equals_uninterrupted_training(records, tmp_path, with_heads):
    if with_heads:
        records, recipe = with_targets(records), HEADS
    else:
        recipe = RECIPE
    _, uninterrupted = train(records, tmp_path / "whole", recipe)

    class Killed(Exception):
        pass

    steps = iter(range(1, 25))

    def kill():
        if next(steps) == 14:
            raise Killed

    with pytest.raises(Killed):
        train(records, tmp_path / "parts", recipe, on_step=kill)
    _, result = train(records, tmp_path / "parts", recipe)
    assert result.resumed_from == 12
    assert [past.step for past in result.history] == [4, 8, 12, 16, 20, 24]
    assert [past.accuracy for past in result.history] == [past.accuracy for past in uninterrupted.history]
    ends = [checkpoints.newest(str(tmp_path / name)).values for name in ("whole", "parts")]
    assert ends[0].keys() == ends[1].keys() and with_heads is ("momentum/SourceLogits-Dense_0/kernel" in ends[0])
    for name, value in ends[0].items():
        np.testing.assert_allclose(value, ends[1][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_early_stopping_waits_for_patience_and_keeps_the_best(records, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=400, patience=2, learning_rate=0.0, average_decay=0.0)
    _, result = train(records, tmp_path, recipe)
    assert result.steps == 4 + 2 * 4
    assert result.best_step == 4


def test_of_equal_accuracies_the_lower_loss_is_better(records, tmp_path, monkeypatch):
    results = iter([(0.5, 0.9), (0.4, 0.9), (0.45, 0.9), (0.1, 0.8), (0.4, 0.9), (0.39, 0.9)])
    monkeypatch.setattr("marco_model.engines.Synchronous.evaluate", lambda self: (*next(results), 20))
    recipe = dataclasses.replace(RECIPE, steps=12)
    assert train(records, tmp_path, recipe)[1].best_step == 8
    _, result = train(records, tmp_path, dataclasses.replace(RECIPE, steps=24))
    assert (result.resumed_from, result.best_step, result.accuracy) == (12, 24, 0.9)


def test_a_start_gives_way_only_to_a_gain_of_more_than_one_image(records, tmp_path, monkeypatch):
    assert len(records["validation_records"]) == 20  # The labels of ten are hidden.
    results = iter([(0.5, 0.8), (0.1, 0.8), (0.1, 0.9), (0.6, 1.0), (0.5, 1.0)])
    monkeypatch.setattr("marco_model.engines.Synchronous.evaluate", lambda self: (*next(results), 10))
    for steps, best in ((4, 0), (8, 0), (12, 12), (16, 16)):
        recipe = dataclasses.replace(RECIPE, steps=steps)
        assert train(records, tmp_path, recipe, evaluate_first=True)[1].best_step == best


@pytest.mark.parametrize("wrong, steps", [(0, 0), (1, 0), (2, 8)])
def test_a_start_that_no_training_could_replace_is_not_trained(records, tmp_path, monkeypatch, caplog, wrong, steps):
    monkeypatch.setattr("marco_model.engines.Synchronous.evaluate", lambda self: (0.1, 1 - wrong / 20, 20))
    recipe = dataclasses.replace(RECIPE, steps=8)
    model, _ = train(records, tmp_path / "first", recipe)
    before = model.get_weights()
    result = training.train(
        model, recipe, input_size=SIZE, evaluate_first=True, checkpoint_directory=str(tmp_path / "second"), **records
    )
    assert (result.steps, result.best_step) == (steps, 0)
    assert [past.step for past in result.history] == [0, 4, 8][: 1 + steps // 4]
    assert all((left == right).all() for left, right in zip(before, model.get_weights(), strict=True))
    assert (f"label {20 - wrong} of 20 validation images right" in caplog.text) is (steps == 0)


def test_a_validation_split_whose_labels_are_all_hidden_is_refused(records, tmp_path):
    hidden = example_files.Targets("institution", small_problem.SOURCES, small_problem.SOURCES)
    validation = dataclasses.replace(records["validation_records"], targets=hidden)
    with pytest.raises(InputError, match=r"unlabelled hides all labels of the validation split"):
        train({**with_targets(records), "validation_records": validation}, tmp_path, HEADS)


def test_too_few_images_are_named(records, tmp_path):
    with pytest.raises(InputError, match=r"60 images, less than recipe\.batch_size 64"):
        train(records, tmp_path, dataclasses.replace(RECIPE, batch_size=64))


def test_a_loss_that_explodes_stops_the_run(records, tmp_path):
    with pytest.raises(InputError, match=r"lower recipe\.learning_rate"):
        train(records, tmp_path, dataclasses.replace(RECIPE, learning_rate=1e30))


def test_a_training_that_stopped_early_does_not_continue(records, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=400, patience=2, learning_rate=0.0, average_decay=0.0)
    train(records, tmp_path, recipe)
    _, again = train(records, tmp_path, recipe)
    assert (again.steps, again.resumed_from) == (12, 12)


def test_a_checkpoint_of_another_network_is_refused(records, tmp_path):
    train(records, tmp_path, dataclasses.replace(RECIPE, steps=4))
    other = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(InputError, match="made by another network"):
        training.train(other, RECIPE, input_size=SIZE, checkpoint_directory=str(tmp_path), **records)


@pytest.mark.long
@pytest.mark.parametrize("with_heads", [False, True], ids=["plain", "heads"])
def test_bfloat16_and_xla_learn_as_well(records, tmp_path, with_heads):
    recipe = HEADS if with_heads else RECIPE
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network_with_raw_head() if with_heads else network()
    finally:
        keras.config.set_dtype_policy(before)
    records = with_targets(records) if with_heads else records
    engine = Engine(precision="bfloat16", xla=True)
    result = training.train(
        model, recipe, input_size=SIZE, checkpoint_directory=str(tmp_path), engine=engine, **records
    )
    assert result.accuracy >= 0.9
    assert all(weights.dtype == np.float32 for weights in model.get_weights())


def test_the_first_weights_win_if_training_does_not_improve_them(records, tmp_path):
    model, first = train(records, tmp_path / "first", dataclasses.replace(RECIPE, steps=4))
    assert first.accuracy <= 0.9
    before = model.get_weights()
    recipe = dataclasses.replace(RECIPE, steps=8, learning_rate=1.0)
    options = {"checkpoint_directory": str(tmp_path / "second"), **records}
    result = training.train(model, recipe, input_size=SIZE, evaluate_first=True, **options)
    assert (result.best_step, result.accuracy, result.steps) == (0, first.accuracy, 8)
    assert all((left == right).all() for left, right in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("steps, every", [(30, 10), (50_000, 10), (50_001, 11), (1_700_000, 340)])
def test_a_long_training_reports_some_thousand_times_at_most(steps, every):
    assert training.report_every(steps) == every
    assert steps / every <= 5_000


@pytest.mark.long
@pytest.mark.slow
def test_a_bucket_that_is_away_while_training_resumes_costs_no_step(records, gcs, monkeypatch):
    """For a whole minute: MARCO_TEST_OUTAGE=60."""
    monkeypatch.setattr(store, "RETRY_SECONDS", 120.0)  # As outside of tests.
    seconds = float(os.environ.get("MARCO_TEST_OUTAGE", "3"))
    gcs.bucket("runs")
    whole, _ = train(records, "gs://runs/whole", dataclasses.replace(RECIPE, steps=8))
    train(records, "gs://runs/parts", dataclasses.replace(RECIPE, steps=4))
    fault = gcs.inject("503", r"(?s).*", times=10**9)
    threading.Timer(seconds, gcs.faults.clear).start()
    resumed, result = train(records, "gs://runs/parts", dataclasses.replace(RECIPE, steps=8))
    assert fault.hits > 2
    assert (result.resumed_from, result.steps) == (4, 8)
    for left, right in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_heads_of_raw_labels_and_sources_learn_beside_the_classes(records, tmp_path):
    """The sources look alike here, so that the source head learns nothing and disturbs nothing."""
    losses = {}
    model, result = train(
        with_targets(records), tmp_path, HEADS, on_metrics=lambda step, metrics: losses.update({step: metrics})
    )
    assert result.accuracy >= 0.9
    assert set(model.output) == {"logits", "raw_logits"}
    validation = list(training_input.evaluation_batches(records["validation_records"], size=SIZE, batch_size=20))
    outputs = model(validation[0][0], training=False)
    assert np.mean(np.argmax(outputs["logits"], axis=1) == validation[0][1]) >= 0.9, "the hidden half too"
    values = checkpoints.newest(str(tmp_path)).values
    fresh = layers.source_head(8, 2, HEADS.seed)
    for variable in fresh.variables:
        if variable.path.endswith("kernel"):
            assert np.abs(values[f"weight/{variable.path}"] - variable.numpy()).max() > 1e-4, variable.path
