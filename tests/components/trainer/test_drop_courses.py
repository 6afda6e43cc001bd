"""An exported model learns when crystals came from training drops whose pictures are of several inspections."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.settings import Transform
from components.trainer import drop_courses, execution
from marco_data import contract
from marco_model import example_files, network, pixels, time_course
from marco_model.load import open_classifier
from marco_scoring import prediction
from tests import short_network, small_training

SMALL = network.Network(input_size=151, depth_multiplier=0.1, auxiliary=False)
INSPECTIONS = 3


def picture(rng, crystals):
    """A grey drop, or with crystals one that is brighter in a checkerboard."""
    board = np.indices((160, 170)).sum(axis=0)[..., None] // 8 % 2 * 120
    values = rng.uniform(50, 90) + board * crystals + rng.normal(0, 5, (160, 170, 3))
    return tf.io.encode_jpeg(np.clip(values, 0, 255).astype(np.uint8)).numpy()


def write_drops(path, count, seed):
    """Writes drops, every other of which has crystals from its second or third inspection on; returns the pictures."""
    rng = np.random.default_rng(seed)
    pictures = {}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for drop in range(count):
            since = rng.integers(1, INSPECTIONS) if drop % 2 else INSPECTIONS
            for inspection in range(INSPECTIONS):
                well = f"{'ABCDEFGH'[drop // 12]}{drop % 12 + 1}"
                name = f"{seed:04}_{well}_ImagerDefaults_{inspection + 1}.jpg"
                label = int(inspection >= since)
                pictures[name] = picture(rng, label)
                example = contract.build_example(
                    encoded=pictures[name],
                    image_format="JPEG",
                    height=160,
                    width=170,
                    filename=name,
                    image_id=len(pictures),
                    label=label,
                    label_text=small_training.CLASSES[label],
                    label_raw=label,
                    source=0,
                )
                writer.write(example.SerializeToString())
    return pictures


def index(path):
    return example_files.read_index([str(path)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a small model, exported without a time course, and the folder of its records."""
    folder = tmp_path_factory.mktemp("drops")
    for seed, name in enumerate(("train", "validation")):
        write_drops(folder / f"{name}.tfrecord", 60, seed)
    with short_network.cut():
        model = network.build(SMALL, num_classes=2, seed=0)
    execution.write_model(model, SMALL, Transform(), "drops", str(folder / "model"), small_training.CLASSES)
    return folder


def test_records_tell_drop_and_time(exported):
    places = drop_courses.record_places(index(exported / "train.tfrecord"))
    assert len(places) == 60 * INSPECTIONS
    assert (places[4].plate, places[4].well, places[4].inspection) == ("0000", "A2", "2")


def test_a_drop_with_a_hidden_label_is_passed_over(exported):
    """The labels of a training with further targets are vectors, of which the time course takes the class."""

    class Network:
        def described(self, images):
            return np.zeros((len(images), 2)), np.zeros(len(images)), np.zeros((len(images), 4))

    plain = index(exported / "train.tfrecord")
    drops = drop_courses._several(drop_courses.record_places(plain))
    names = tuple(f"0000_A{well}_ImagerDefaults_1.jpg" for well in (1, 2))
    sought = example_files.Targets(contract.FILENAME, names, unlabelled=names[:1])
    targeted = dataclasses.replace(plain, targets=sought)
    every, known = (list(drop_courses.read_series(Network(), each, drops, [1])) for each in (plain, targeted))
    assert (len(every), len(known)) == (60, 59)
    for before, after in zip(every[1:], known, strict=True):
        assert after.crystals.tolist() == before.crystals.tolist()


@pytest.mark.slow
def test_a_model_is_exported_with_a_time_course_and_tells_it(exported, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pixels, "flag", lambda encoded: "")  # These are small.
    assert open_classifier(exported / "model").time_course is None
    splits = [index(exported / f"{name}.tfrecord") for name in ("train", "validation")]
    with caplog.at_level("INFO"):
        drop_courses.add(str(exported / "model"), small_training.CLASSES, *splits)
    assert "by the next inspection in 30 of 30 held-out drops" in caplog.text
    classifier = open_classifier(exported / "model")
    assert classifier.time_course.classes.tolist() == [1]

    drops = write_drops(tmp_path / "other.tfrecord", 8, 7)
    for name, encoded in drops.items():
        (tmp_path / name).write_bytes(encoded)
    prediction.predict(classifier, sorted(tmp_path.glob("*.jpg")), tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as table:
        rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(table)}
    places = drop_courses.record_places(index(tmp_path / "other.tfrecord"))
    labels = [int(label) for _, label in execution.training_input.examples(index(tmp_path / "other.tfrecord"))]
    for drop in range(8):
        part = slice(drop * INSPECTIONS, (drop + 1) * INSPECTIONS)
        first = next((place.inspection for place, label in zip(places[part], labels[part], strict=True) if label), "")
        assert [rows[name]["crystals_since"] for name in list(drops)[part]][-1] == first
    (single,) = [name for name in drops if name.endswith("_A1_ImagerDefaults_1.jpg")]
    scores = classifier.probabilities([drops[single]])
    assert float(rows[single]["crystals_by_now"]) == pytest.approx(float(scores[0, 1]), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "count", "message"),
    [
        (("Clear", "Salt"), 60, "named after crystals"),
        (("Clear", "Crystals"), 8, "have 8 and 0 drops"),
        (("Clear", "Crystals"), 60, "have 60 and 0 drops"),
    ],
)
def test_without_drops_or_crystals_there_is_none_and_why(exported, tmp_path, caplog, classes, count, message):
    """Drops of both splits are not held out."""
    write_drops(tmp_path / "few.tfrecord", count, 3)
    few = index(tmp_path / "few.tfrecord")
    before = (exported / "model" / time_course.FILE).exists()
    drop_courses.add(str(exported / "model"), classes, few, few)
    assert message in caplog.text and (exported / "model" / time_course.FILE).exists() is before


@pytest.mark.slow
def test_drops_with_hidden_labels_do_not_count(exported, caplog):
    """Of 60 drops 12 have a hidden label, and 48 are too few."""
    splits = [index(exported / f"{name}.tfrecord") for name in ("train", "validation")]
    hidden = tuple(f"0001_A{well}_ImagerDefaults_1.jpg" for well in range(1, 13))
    sought = example_files.Targets(contract.FILENAME, hidden, unlabelled=hidden)
    splits[1] = dataclasses.replace(splits[1], targets=sought)
    before = (exported / "model" / time_course.FILE).exists()
    drop_courses.add(str(exported / "model"), small_training.CLASSES, *splits)
    assert "have 60 and 48 drops" in caplog.text
    assert (exported / "model" / time_course.FILE).exists() is before
