import numpy as np
import pytest
import tensorflow as tf

from marco_model import training_input
from marco_model.recipe import Recipe
from tests.marco_model.small_problem import SIZE


def test_every_epoch_shows_every_image_once_in_a_new_order(files):
    encoded = training_input.encoded_images(files["train_files"])
    recipe = Recipe(batch_size=4, shuffle=64, seed=3)
    options = {"skip": 0, "batches": 15, "size": SIZE}
    epochs = [
        np.concatenate([i.numpy() for i, _ in training_input.epoch_batches(encoded, recipe, epoch=e, **options)])
        for e in (0, 0, 1)
    ]
    assert len(epochs[0]) == 60
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert (epochs[0] != epochs[2]).any()
    late = [i.numpy() for i, _ in training_input.epoch_batches(encoded, recipe, epoch=0, **{**options, "skip": 13})]
    np.testing.assert_array_equal(np.concatenate(late), epochs[0][52:])


def test_the_shares_of_several_processes_make_up_the_batches_of_one(files):
    encoded = training_input.encoded_images(files["train_files"])
    recipe = Recipe(batch_size=12, shuffle=64, seed=3)
    options = {"epoch": 2, "skip": 1, "batches": 5, "size": SIZE}
    whole = [images.numpy() for images, _ in training_input.epoch_batches(encoded, recipe, **options)]
    shares = [training_input.Share(index, 3) for index in range(3)]
    parts = [
        [images.numpy() for images, _ in training_input.epoch_batches(encoded, recipe, **options, share=share)]
        for share in shares
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


def test_passes_of_training_and_evaluation_end_at_once(tmp_path):
    file = str(tmp_path / "data.gz")
    with tf.io.TFRecordWriter(file, "GZIP"):
        pass
    recipe = Recipe(batch_size=2, shuffle=2)
    encoded = training_input.encoded_images([file])
    training = training_input.epoch_batches(encoded, recipe, epoch=0, skip=0, batches=1, size=8)
    evaluation = training_input.evaluation_batches([file], images=2, size=8, batch_size=2)
    assert training.options().autotune.enabled is False
    assert evaluation.options().autotune.enabled is False
