import itertools

import numpy as np
import pytest
import tensorflow as tf

from marco_model import example_files, training_input
from marco_model.errors import InputError
from marco_model.recipe import Recipe

IMAGE = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()
# Label, institution, imager, raw label; None: the record has none.
RECORDS = [
    (0, "Merck", "Rock", 7),
    (1, "CSIRO", "Minstrel", 3),
    (1, "Merck", "Rock", None),
    (0, "unknown", "Rock", 12),
    (1, "CSIRO", "unknown", 5),
    (0, None, None, 3),
]
BOTH = Recipe(adversarial_weight=1.0, raw_weight=1.0)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "data", RECORDS)


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label, institution, imager, raw in records:
            example = tf.train.Example()
            feature = example.features.feature
            feature["image/encoded"].bytes_list.value.append(IMAGE)
            feature["image/class/label"].int64_list.value.append(label)
            for name, text in (("institution", institution), ("imager", imager)):
                if text is not None:
                    feature[name].bytes_list.value.append(text.encode())
            if raw is not None:
                feature["image/class/raw"].int64_list.value.append(raw)
            writer.write(example.SerializeToString())
    return str(path)


def index(path, found):
    read = example_files.read_index([path])
    return example_files.RecordIndex(read.files, read.file, read.offset, read.length, found)


def test_nothing_is_looked_for_unless_the_recipe_asks():
    assert example_files.find_targets(Recipe(), ["no such file"]) == example_files.NO_TARGETS
    assert not example_files.NO_TARGETS


def test_what_records_have_is_numbered_and_what_is_unknown_is_left_out(path):
    path = write(path, [*RECORDS, (0, None, None, -5)])
    found = example_files.find_targets(BOTH, [path], {3: "needles", 12: "unknown", 99: "plates"})
    assert found.sources == ("CSIRO", "Merck")
    assert list(found.raw_labels.items()) == [(3, "needles"), (5, "raw label 5"), (7, "raw label 7")]
    read = training_input.reader(index(path, found))
    labels = [read(tf.constant(number, tf.int64))[1].numpy().tolist() for number in range(len(RECORDS) + 1)]
    assert labels == [[0, 1, 2], [1, 0, 0], [1, 1, -1], [0, -1, -1], [1, 0, 1], [0, -1, 0], [0, -1, -1]]


def test_the_imager_may_be_the_source_and_each_part_stands_alone(path):
    by_imager = example_files.find_targets(Recipe(adversarial_weight=1.0, sources="imager"), [path])
    assert (by_imager.sources, by_imager.raw_labels) == (("Minstrel", "Rock"), {})
    raw = example_files.find_targets(Recipe(raw_weight=1.0), [path])
    assert (raw.sources, list(raw.raw_labels)) == ((), [3, 5, 7, 12])
    read = training_input.reader(index(path, raw))
    assert read(tf.constant(0, tf.int64))[1].numpy().tolist() == [0, -1, 2]


def test_labels_of_an_unlabelled_source_are_never_seen(path):
    found = example_files.find_targets(Recipe(unlabelled=("CSIRO",), raw_weight=1.0), [path])
    assert list(found.raw_labels) == [3, 7, 12]  # 5 is on CSIRO's records alone.
    records = index(path, found)
    taken = training_input.training_batches(records, Recipe(batch_size=6), 8)
    rows = np.concatenate([labels.numpy() for _, labels in itertools.islice(taken, 4)])
    assert (rows[rows[:, 1] == 0][:, [0, 2]] == -1).all() and (rows[:, 1] == 0).sum() == 8
    assert (rows[rows[:, 1] != 0][:, 0] >= 0).all()
    ((_, labels),) = training_input.evaluation_batches(records, size=8, batch_size=8)
    assert labels.numpy().tolist() == [0, -1, 1, 0, -1, 0, -1, -1]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(unlabelled=("GSK",)), r"unlabelled has 'GSK'.*by institution there are CSIRO, Merck"),
        (Recipe(unlabelled=("Merck", "CSIRO")), "names every institution, CSIRO, Merck; leave one"),
    ],
)
def test_sources_that_make_no_sense_are_refused(path, recipe, message):
    with pytest.raises(InputError, match=message):
        example_files.find_targets(recipe, [path])


def test_a_validation_split_without_labels_is_refused(tmp_path, path):
    hidden = write(tmp_path / "hidden", [(0, "Merck", "Rock", 1), (1, "Merck", "Rock", None)])
    recipe = Recipe(unlabelled=("Merck",))
    example_files.check_validation(Recipe(), ["no such file"])
    example_files.check_validation(recipe, [hidden, path])
    with pytest.raises(InputError, match=r"hides all labels of the validation split, whose images are of Merck; raise"):
        example_files.check_validation(recipe, [hidden])


def test_heads_with_nothing_to_tell_apart_are_refused(tmp_path):
    path = write(tmp_path / "one", [(0, "Merck", "Rock", 1), (1, "Merck", "Rock", None)])
    with pytest.raises(InputError, match=r"adversarial_weight needs .* by institution there are Merck: set it to 0"):
        example_files.find_targets(Recipe(adversarial_weight=1.0), [path])
    with pytest.raises(InputError, match=r"raw_weight needs two raw labels .* have \['raw label 1'\]: set it to 0"):
        example_files.find_targets(Recipe(raw_weight=1.0), [path])
