import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st

from marco_model import training, training_input
from marco_model.errors import ClusterError, InputError
from marco_model.recipe import Engine
from tests.marco_model.small_problem import RECIPE, SIZE, network


def train(records, folder, recipe=RECIPE, **options):
    model = network()
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


def test_a_recipe_stated_for_another_batch_trains_as_the_one_that_the_rule_makes_of_it(records, tmp_path):
    stated = dataclasses.replace(RECIPE, steps=48, stated_for_batch=4)
    carried, result = train(records, tmp_path / "stated", stated)
    written_out, _ = train(records, tmp_path / "effective", stated.effective())
    assert result.steps == 24
    for left, right in zip(carried.get_weights(), written_out.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_resumed_training_equals_uninterrupted_training(records, tmp_path):
    whole, uninterrupted = train(records, tmp_path / "whole")

    class Killed(Exception):
        pass

    steps = iter(range(1, 25))

    def kill():
        if next(steps) == 14:
            raise Killed

    with pytest.raises(Killed):
        train(records, tmp_path / "parts", on_step=kill)
    resumed, result = train(records, tmp_path / "parts")
    assert result.resumed_from == 12
    assert [past.step for past in result.history] == [4, 8, 12, 16, 20, 24]
    assert [past.accuracy for past in result.history] == [past.accuracy for past in uninterrupted.history]
    for left, right in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_early_stopping_waits_for_patience_and_keeps_the_best(records, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=400, patience=2, learning_rate=0.0, average_decay=0.0)
    _, result = train(records, tmp_path, recipe)
    assert result.steps == 4 + 2 * 4
    assert result.best_step == 4


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


def test_bfloat16_and_xla_learn_as_well(records, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(before)
    engine = Engine(precision="bfloat16", xla=True)
    result = training.train(
        model, RECIPE, input_size=SIZE, checkpoint_directory=str(tmp_path), engine=engine, **records
    )
    assert result.accuracy >= 0.9
    assert all(weights.dtype == np.float32 for weights in model.get_weights())


def test_the_first_weights_win_if_training_does_not_improve_them(records, tmp_path):
    model, _ = train(records, tmp_path / "first")
    before = model.get_weights()
    recipe = dataclasses.replace(RECIPE, steps=8, learning_rate=1.0)
    options = {"checkpoint_directory": str(tmp_path / "second"), **records}
    result = training.train(model, recipe, input_size=SIZE, evaluate_first=True, **options)
    assert (result.best_step, result.accuracy) == (0, 1.0)
    assert all((left == right).all() for left, right in zip(before, model.get_weights(), strict=True))


def checkpoint_of(step, seed=0):
    rng = np.random.default_rng(seed)
    values = {"weight/a/kernel": rng.normal(size=(3, 5)).astype(np.float32), "weight/b": np.float32(seed)}
    history = [training.Evaluated(past, 0.1 * past, 1 / 3) for past in range(0, step, 5)]
    return training.Checkpoint(step, step // 2, 0.1 + 0.2, values, history)


def checkpoint_path(folder, step):
    return folder / f"step-{step:09d}.npz"


def test_a_checkpoint_is_read_as_it_was_saved_to_the_bit(tmp_path):
    saved = checkpoint_of(12, 3)
    training.save_checkpoint(str(tmp_path), saved)
    newest = training.newest_checkpoint(str(tmp_path))
    assert newest[:3] == saved[:3]
    assert newest.history == saved.history
    assert newest.values.keys() == saved.values.keys()
    for name, value in saved.values.items():
        assert newest.values[name].dtype == np.float32
        np.testing.assert_array_equal(newest.values[name], value)


def test_the_last_two_are_kept_and_nothing_else_is_left(tmp_path):
    for name in (".step-000000007.npz.0123456789ab.partial", "step-000000007.npz.partial"):
        (tmp_path / name).write_bytes(b"half")
    for step in (5, 10, 900, 1000):
        training.save_checkpoint(str(tmp_path), checkpoint_of(step))
    assert training.saved_steps(str(tmp_path)) == [900, 1000]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_checkpoints_has_none(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "step-000000004.npz.partial").write_bytes(b"half")
    assert training.newest_checkpoint(str(tmp_path)) is None
    assert training.newest_checkpoint(str(tmp_path / "missing")) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_newest_file_is_read_completely_or_the_one_before_it_is(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoints")
    training.save_checkpoint(str(folder), checkpoint_of(10, 1))
    training.save_checkpoint(str(folder), checkpoint_of(20, 2))
    content = bytearray(checkpoint_path(folder, 20).read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1), label="at") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), label="byte")] ^= data.draw(st.integers(1, 255))
    checkpoint_path(folder, 20).write_bytes(content)
    newest = training.newest_checkpoint(str(folder))
    expected = checkpoint_of(newest.step, newest.step // 10)
    assert newest.step in (10, 20)
    for name, value in expected.values.items():
        np.testing.assert_array_equal(newest.values[name], value)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path, caplog):
    training.save_checkpoint(str(tmp_path), checkpoint_of(10))
    checkpoint_path(tmp_path, 20).write_bytes(b"")
    assert training.newest_checkpoint(str(tmp_path)).step == 10
    assert "step-000000020.npz can't be read" in caplog.text


@pytest.mark.parametrize("steps, every", [(30, 10), (50_000, 10), (50_001, 11), (1_700_000, 340)])
def test_a_long_training_reports_some_thousand_times_at_most(steps, every):
    assert training.report_every(steps) == every
    assert steps / every <= 5_000


class Outage:
    """A store that does not answer the first `count` times that its files are listed or opened."""

    def __init__(self, monkeypatch, count):
        self.left = count
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        for name in ("listdir", "GFile"):
            monkeypatch.setattr(tf.io.gfile, name, self.wrap(getattr(tf.io.gfile, name)))

    def wrap(self, function):
        def answer(*arguments, **options):
            if self.left:
                self.left -= 1
                raise tf.errors.UnavailableError(None, None, "503 Service Unavailable")
            return function(*arguments, **options)

        return answer


@pytest.mark.parametrize("count", [1, 5])
def test_a_store_that_does_not_answer_for_a_while_is_no_damage(tmp_path, monkeypatch, caplog, count):
    for step in (10, 20):
        training.save_checkpoint(str(tmp_path), checkpoint_of(step))
    Outage(monkeypatch, count)
    assert training.newest_checkpoint(str(tmp_path)).step == 20
    assert caplog.text.count("does not answer (503 Service Unavailable); trying again") == count
    Outage(monkeypatch, count)
    training.save_checkpoint(str(tmp_path), checkpoint_of(30))
    assert training.saved_steps(str(tmp_path)) == [20, 30]


def test_a_file_that_is_gone_when_it_is_read_is_passed_over(tmp_path, monkeypatch):
    training.save_checkpoint(str(tmp_path), checkpoint_of(10))
    monkeypatch.setattr(training, "saved_steps", lambda directory: [10, 20])
    assert training.newest_checkpoint(str(tmp_path)).step == 10


def test_a_file_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    training.save_checkpoint(str(tmp_path), checkpoint_of(10))

    def refuse(*_):
        raise tf.errors.PermissionDeniedError(None, None, "403 Forbidden")

    monkeypatch.setattr(tf.io.gfile, "GFile", refuse)
    with pytest.raises(tf.errors.PermissionDeniedError):
        training.newest_checkpoint(str(tmp_path))


def test_a_store_that_never_answers_ends_training_and_loses_nothing(records, tmp_path, monkeypatch):
    train(records, tmp_path, dataclasses.replace(RECIPE, steps=4))
    with monkeypatch.context() as patch:
        Outage(patch, -1)
        patch.setattr(training, "OUTAGE_SECONDS", 0.01)
        with pytest.raises(ClusterError, match=r"does not answer .*503.*; start again to continue"):
            train(records, tmp_path, dataclasses.replace(RECIPE, steps=8))
    assert training.newest_checkpoint(str(tmp_path)).step == 4


def test_the_file_just_written_is_kept_beside_later_ones_that_were_damaged(tmp_path, caplog):
    training.save_checkpoint(str(tmp_path), checkpoint_of(10))
    for step in (500, 600):
        checkpoint_path(tmp_path, step).write_bytes(b"damaged")
    assert training.newest_checkpoint(str(tmp_path)).step == 10
    training.save_checkpoint(str(tmp_path), checkpoint_of(20))
    assert training.saved_steps(str(tmp_path)) == [10, 20]
    assert training.newest_checkpoint(str(tmp_path)).step == 20


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    training.save_checkpoint(str(tmp_path), checkpoint_of(10))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        training.save_checkpoint(str(tmp_path), checkpoint_of(20))
    assert training.newest_checkpoint(str(tmp_path)).step == 10
