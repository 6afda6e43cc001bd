import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from marco_model import engines, example_files, training_input, training_step
from marco_model.recipe import Engine, Recipe
from tests.marco_model.small_problem import RECIPE, SIZE, network

ROOM = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()


def write_labels(path, labels, encoded=ROOM):
    """Writes a record of each label, all with the same image; returns the index."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in labels:
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return example_files.read_index([str(path)])


def labels_of(batches, count):
    return np.concatenate([labels.numpy() for _, labels in itertools.islice(batches, count)])


def images_of(batches, count):
    return np.concatenate([images.numpy() for images, _ in itertools.islice(batches, count)])


def test_a_reader_returns_each_record(records):
    index = records["train_records"]
    read = training_input.reader(index)
    plain = tf.data.TFRecordDataset(list(index.files)).map(
        lambda record: tf.io.parse_single_example(record, training_input.FEATURES)
    )
    for number, example in enumerate(plain):
        image, label = read(tf.constant(number, tf.int64))
        assert (image, label) == (example["image/encoded"], example["image/class/label"])


def test_every_epoch_shows_every_image_once_in_a_new_order(tmp_path):
    index = write_labels(tmp_path / "data", range(60))
    recipe = Recipe(batch_size=4, seed=3)
    labels = labels_of(training_input.training_batches(index, recipe, 8), 45)
    epochs = labels.reshape(3, 60)
    for epoch in epochs:
        assert sorted(epoch) == list(range(60))
    assert (epochs[0] != epochs[1]).mean() > 0.9
    assert (epochs[1] != epochs[2]).mean() > 0.9
    other = labels_of(training_input.training_batches(index, dataclasses.replace(recipe, seed=4), 8), 15)
    assert (other != epochs[0]).mean() > 0.9


@pytest.mark.parametrize("window_share", [None, (0.4, 1.0)])
def test_resumed_input_equals_uninterrupted_input(records, window_share):
    recipe = Recipe(batch_size=4, seed=3, window_share=window_share)
    whole = images_of(training_input.training_batches(records["train_records"], recipe, SIZE), 20)
    late = images_of(training_input.training_batches(records["train_records"], recipe, SIZE, first=13), 7)
    np.testing.assert_array_equal(late, whole[52:])


def test_the_images_beyond_full_batches_are_others_in_each_epoch(tmp_path):
    index = write_labels(tmp_path / "data", range(10))
    labels = labels_of(training_input.training_batches(index, Recipe(batch_size=4), 8), 20)
    for epoch in labels.reshape(10, 8):
        assert len(set(epoch)) == 8
    assert set(labels) == set(range(10))


SORTED = {
    "by class": [label for label, share in enumerate((0.34, 0.13, 0.05, 0.48)) for _ in range(int(share * 8000))],
    "by institution": [
        label
        for shares in ((1, 3, 1, 15), (10, 1, 0, 9), (3, 6, 1, 10), (13, 0, 2, 5))
        for label in np.repeat(range(4), np.array(shares) * 100)
    ],
}


@pytest.mark.parametrize("order", ["by class", pytest.param("by institution", marks=pytest.mark.long)])
def test_every_stretch_of_training_sees_the_mixture_of_the_set_whatever_the_order_of_its_records(tmp_path, order):
    labels = np.array(SORTED[order])
    assert len(labels) == 8000
    index = write_labels(tmp_path / "data", labels)
    seen = labels_of(training_input.training_batches(index, Recipe(batch_size=50, seed=1), 8), 480)
    for label in range(4):
        sums = np.cumsum(np.concatenate([[0], seen == label]))
        shares = (sums[2000:] - sums[:-2000]) / 2000
        assert np.abs(shares - (labels == label).mean()).max() < 0.05


def test_asynchronous_workers_go_through_the_data_in_orders_of_their_own(tmp_path):
    index = write_labels(tmp_path / "data", range(400))
    recipe = Recipe(batch_size=10)

    def worker():
        taken = list(itertools.islice(training_input.endless_batches(index, recipe, 8), 40))
        return np.concatenate([labels for _, labels, _ in taken]), {int(seed[0]) for _, _, seed in taken}

    (left, left_stream), (right, right_stream) = worker(), worker()
    assert sorted(left) == sorted(right) == list(range(400))
    assert left_stream.isdisjoint(right_stream) and len(left_stream) == 1
    # A quarter of an epoch has a quarter of the images of another worker's, as by chance.
    assert len(set(left[:100]) & set(right[:100])) < 50


@pytest.mark.parametrize("window_share", [None, (0.4, 1.0)])
def test_the_shares_of_several_processes_make_up_the_batches_of_one(records, window_share):
    index, recipe = records["train_records"], Recipe(batch_size=12, seed=3, window_share=window_share)
    whole = images_of(training_input.training_batches(index, recipe, SIZE, first=1), 6)
    parts = [
        images_of(training_input.training_batches(index, recipe, SIZE, first=1, share=training_input.Share(n, 3)), 6)
        for n in range(3)
    ]
    joined = np.concatenate([part.reshape(6, 4, SIZE, SIZE, 3) for part in parts], axis=1)
    np.testing.assert_array_equal(joined, whole.reshape(6, 12, SIZE, SIZE, 3))


def test_windows_follow_the_recipe_in_every_kind_of_training(tmp_path):
    columns = np.tile(np.arange(240, dtype=np.uint8)[None, :, None], (240, 1, 3))
    index = write_labels(tmp_path / "data", range(8), tf.io.encode_png(columns).numpy())
    for share, scale in ((None, 1), ((0.5, 0.5), 6), ((1.0, 1.0), 12)):
        recipe = Recipe(batch_size=8, window_share=share)
        for batches in (training_input.training_batches, training_input.endless_batches):
            windows = next(iter(batches(index, recipe, 20)))[0].numpy().astype(int)
            np.testing.assert_allclose(windows[:, :, -1] - windows[:, :, 0], 19 * scale, atol=1)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_share_of_the_evaluation_has_as_many_batches_and_no_image_is_lost(records, processes):
    seen = []
    for index in range(processes):
        batches = training_input.evaluation_batches(
            records["validation_records"], size=SIZE, batch_size=8, share=training_input.Share(index, processes)
        )
        labels = [labels.numpy() for _, labels in batches]
        assert [len(part) for part in labels] == [8 // processes] * 3
        seen += list(np.concatenate(labels))
    assert sorted(seen) == [training_input.PADDING] * 4 + [0] * 10 + [1] * 10


def test_a_damaged_record_is_an_error(tmp_path):
    index = write_labels(tmp_path / "data", [0, 1])
    with (tmp_path / "data").open("r+b") as file:
        file.seek(index.offset[1] + 30)
        file.write(b"damage")
    read = training_input.reader(index)
    assert read(tf.constant(0, tf.int64))[1] == 0
    with pytest.raises(tf.errors.DataLossError):
        read(tf.constant(1, tf.int64))


COUNTERS = Path("/proc/self/io")


def bytes_read():
    """Bytes that this process has read by system calls, from the disk or from its cache."""
    return int(COUNTERS.read_text().split()[1])


@pytest.mark.skipif(not COUNTERS.exists(), reason="needs Linux's count of the bytes read")
@pytest.mark.parametrize("every", [10, 200])
def test_an_epoch_is_read_once_however_often_its_stretches_end(tmp_path, every):
    index = write_labels(tmp_path / "data", [0, 1] * 400, ROOM + b"\0" * 20_000)
    size = (tmp_path / "data").stat().st_size
    recipe = dataclasses.replace(RECIPE, batch_size=4)
    engine = engines.start(Engine())
    engine.begin(training_step.TrainingState(network(), recipe), engines.Work(recipe, SIZE, index, index))
    before = bytes_read()
    steps = sum(len(list(engine.steps(first, first + every))) for first in range(0, 200, every))
    # Some batches are read ahead.
    assert steps == 200
    assert size <= bytes_read() - before < 1.1 * size


def test_passes_of_training_and_evaluation_end_at_once(records):
    training = training_input.training_batches(records["train_records"], Recipe(batch_size=2), 8)
    evaluation = training_input.evaluation_batches(records["validation_records"], size=8, batch_size=2)
    assert training.options().autotune.enabled is False
    assert evaluation.options().autotune.enabled is False
