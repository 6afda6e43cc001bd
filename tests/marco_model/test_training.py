import dataclasses

import keras
import numpy as np
import pytest

from marco_model import training, training_input
from marco_model.errors import InputError
from marco_model.recipe import Engine
from tests.marco_model.small_problem import RECIPE, SIZE, network, write_examples


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return {
        "train_files": write_examples(folder / "train.gz", 60, 0),
        "eval_files": write_examples(folder / "eval.gz", 20, 1),
    }


def train(files, folder, recipe=RECIPE, **options):
    model = network()
    images = {
        "train_images": training_input.count(files["train_files"]),
        "eval_images": training_input.count(files["eval_files"]),
    }
    result = training.train(
        model, recipe, input_size=SIZE, checkpoint_directory=str(folder), **files, **images, **options
    )
    return model, result


def test_training_learns_and_leaves_the_best_averaged_weights_in_the_model(files, tmp_path):
    curves = {}
    model, result = train(
        files, tmp_path, on_metrics=lambda step, metrics: curves.update({(step, k): v for k, v in metrics.items()})
    )
    images, labels = next(
        iter(training_input.evaluation_batches(files["eval_files"], images=20, size=SIZE, batch_size=20))
    )
    accuracy = np.mean(np.argmax(model(images, training=False), axis=-1) == labels)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.accuracy == max(v for (_, name), v in curves.items() if name == "validation/accuracy")
    assert accuracy >= 0.9
    assert result.steps == 24


def test_resumed_training_equals_uninterrupted_training(files, tmp_path):
    whole, _ = train(files, tmp_path / "whole")

    class Killed(Exception):
        pass

    steps = iter(range(1, 25))

    def kill():
        if next(steps) == 14:
            raise Killed

    with pytest.raises(Killed):
        train(files, tmp_path / "parts", on_step=kill)
    resumed, result = train(files, tmp_path / "parts")
    assert result.resumed_from == 12
    for left, right in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_early_stopping_waits_for_patience_and_keeps_the_best(files, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=400, patience=2, learning_rate=0.0, average_decay=0.0)
    _, result = train(files, tmp_path, recipe)
    assert result.steps == 4 + 2 * 4
    assert result.best_step == 4


def test_every_epoch_shows_every_image_once_in_a_new_order(files):
    encoded = training_input.encoded_images(files["train_files"])
    options = {"skip": 0, "batches": 15, "size": SIZE, "batch_size": 4, "shuffle": 64, "seed": 3}
    epochs = [
        np.concatenate([i.numpy() for i, _ in training_input.epoch_batches(encoded, epoch=e, **options)])
        for e in (0, 0, 1)
    ]
    assert len(epochs[0]) == 60
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert (epochs[0] != epochs[2]).any()
    late = [i.numpy() for i, _ in training_input.epoch_batches(encoded, epoch=0, **{**options, "skip": 13})]
    np.testing.assert_array_equal(np.concatenate(late), epochs[0][52:])


def test_too_few_images_are_named(files, tmp_path):
    with pytest.raises(InputError, match=r"60 images, less than recipe\.batch_size 64"):
        train(files, tmp_path, dataclasses.replace(RECIPE, batch_size=64))


def test_a_loss_that_explodes_stops_the_run(files, tmp_path):
    with pytest.raises(InputError, match=r"lower recipe\.learning_rate"):
        train(files, tmp_path, dataclasses.replace(RECIPE, learning_rate=1e30))


def test_the_shares_of_several_processes_make_up_the_batches_of_one(files):
    encoded = training_input.encoded_images(files["train_files"])
    options = {"epoch": 2, "skip": 1, "batches": 5, "size": SIZE, "batch_size": 12, "shuffle": 64, "seed": 3}
    whole = [images.numpy() for images, _ in training_input.epoch_batches(encoded, **options)]
    parts = [
        [
            images.numpy()
            for images, _ in training_input.epoch_batches(encoded, **options, share=training_input.Share(index, 3))
        ]
        for index in range(3)
    ]
    assert len(whole) == 4
    for number, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[number] for part in parts]), batch)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_share_of_the_evaluation_has_as_many_batches_and_no_image_is_lost(files, processes):
    seen = []
    for index in range(processes):
        batches = training_input.evaluation_batches(
            files["eval_files"], images=20, size=SIZE, batch_size=8, share=training_input.Share(index, processes)
        )
        labels = [labels.numpy() for _, labels in batches]
        assert [len(part) for part in labels] == [8 // processes] * 3
        seen += list(np.concatenate(labels))
    assert sorted(seen) == [training_input.PADDING] * 4 + [0] * 10 + [1] * 10


def test_a_training_that_stopped_early_does_not_go_on(files, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=400, patience=2, learning_rate=0.0, average_decay=0.0)
    train(files, tmp_path, recipe)
    _, again = train(files, tmp_path, recipe)
    assert (again.steps, again.resumed_from) == (12, 12)


def test_a_checkpoint_of_another_network_is_refused(files, tmp_path):
    train(files, tmp_path, dataclasses.replace(RECIPE, steps=4))
    other = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(InputError, match="made by another network"):
        training.train(
            other, RECIPE, input_size=SIZE, checkpoint_directory=str(tmp_path), train_images=60, eval_images=20, **files
        )


def test_bfloat16_and_xla_learn_as_well(files, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(before)
    engine = Engine(precision="bfloat16", xla=True)
    options = {"input_size": SIZE, "train_images": 60, "eval_images": 20, **files}
    result = training.train(model, RECIPE, checkpoint_directory=str(tmp_path), engine=engine, **options)
    assert result.accuracy >= 0.9
    assert all(weights.dtype == np.float32 for weights in model.get_weights())


def test_the_first_weights_win_where_training_does_not_better_them(files, tmp_path):
    model, _ = train(files, tmp_path / "first")
    before = model.get_weights()
    recipe = dataclasses.replace(RECIPE, steps=8, learning_rate=1.0)
    options = {"train_images": 60, "eval_images": 20, "checkpoint_directory": str(tmp_path / "second"), **files}
    result = training.train(model, recipe, input_size=SIZE, evaluate_first=True, **options)
    assert (result.best_step, result.accuracy) == (0, 1.0)
    assert all((left == right).all() for left, right in zip(before, model.get_weights(), strict=True))
