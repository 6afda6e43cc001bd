"""An exported model knows what its training pictures looked like, and scoring tells what is unlike them."""

import csv
import pathlib
import shutil

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf

from components.settings import Transform
from components.trainer import execution
from marco_data import contract
from marco_model import example_files, network, novelty, pixels
from marco_model.load import open_classifier
from marco_scoring import prediction, score_table
from tests import short_network, small_training

SMALL = network.Network(input_size=151, depth_multiplier=0.1, auxiliary=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a small model that was exported with a reference, and pictures as it was trained on."""
    folder = tmp_path_factory.mktemp("described")
    images = [small_training.write_examples(folder / f"{name}.tfrecord", 60) for name in ("train", "validation")]
    with short_network.cut():
        model = network.build(SMALL, num_classes=2, seed=0)
    directory = str(folder / "model")
    execution.write_model(model, SMALL, Transform(), "described", directory, small_training.CLASSES)
    assert open_classifier(directory).reference is None
    indices = [example_files.read_index([str(folder / f"{name}.tfrecord")]) for name in ("train", "validation")]
    execution.describe_pictures(directory, execution.Records(*indices))
    return directory, images[1]


def stripes():
    """A picture in colours and with edges that no drop has."""
    picture = np.zeros((160, 170, 3), np.uint8)
    picture[:, ::2] = 255, 40, 0
    return simplejpeg.encode_jpeg(picture)


@pytest.mark.slow
def test_pictures_unlike_those_of_training_are_unknown(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "flag", lambda encoded: "")  # These are small, and of one shade once reduced.
    directory, ordinary = exported
    classifier = open_classifier(directory)
    scores, novelties, _ = classifier.described(ordinary)
    np.testing.assert_array_equal(scores, classifier.score(ordinary))
    assert (novelties <= 1).mean() >= novelty.KEPT - 0.05
    assert classifier.described([stripes()])[1][0] > 2

    (tmp_path / "drop.jpg").write_bytes(ordinary[0])
    (tmp_path / "stripes.jpg").write_bytes(stripes())
    files, output = [tmp_path / "drop.jpg", tmp_path / "stripes.jpg"], tmp_path / "scores.csv"
    outcome = prediction.predict(classifier, files, output)
    assert outcome.by_flag == {prediction.UNKNOWN: 1}
    with output.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["flag"] for row in rows] == ["", "unknown"]
    assert float(rows[0]["novelty"]) <= 1 < float(rows[1]["novelty"])

    seen = []
    options = score_table.Options(resume=True)
    prediction.predict(classifier, files, output, observe=lambda _, image: seen.append(image.flag), options=options)
    assert seen == ["", "unknown"]


@pytest.mark.slow
def test_a_model_of_few_pictures_has_no_reference(exported, tmp_path):
    small_training.write_examples(tmp_path / "few.tfrecord", 8)
    index = example_files.read_index([str(tmp_path / "few.tfrecord")])
    before = open_classifier(exported[0]).reference
    execution.describe_pictures(exported[0], execution.Records(index, index))
    assert open_classifier(exported[0]).reference.limits.tolist() == before.limits.tolist()


def with_institutions(source, path, keep=1):
    """Writes every `keep`th record of a file, those of even numbers as Merck's and the others as CSIRO's."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, data in enumerate(tf.data.TFRecordDataset(str(source)).as_numpy_iterator()):
            example = contract.new_example()
            example.features.feature[contract.INSTITUTION].bytes_list.value.append((b"Merck", b"CSIRO")[number % 2])
            if number % keep == 0:
                writer.write(data + example.SerializeToString())
    return example_files.read_index([str(path)])


@pytest.mark.slow
def test_pictures_whose_label_is_hidden_are_left_out(exported, tmp_path, monkeypatch):
    folder, own = tmp_path / "model", pathlib.Path(exported[0]).parent
    shutil.copytree(exported[0], folder)
    targets = example_files.Targets("institution", ("CSIRO", "Merck"), unlabelled=("CSIRO",))
    half_hidden, rest = (
        execution.Records(
            *(
                with_institutions(own / f"{name}.tfrecord", tmp_path / f"{name}{keep}", keep)
                for name in ("train", "validation")
            )
        ).with_targets(targets)
        for keep in (1, 2)
    )
    monkeypatch.setattr(novelty, "ENOUGH_PICTURES", 30)
    limits = []
    for records in (half_hidden, rest):
        execution.describe_pictures(str(folder), records)
        limits.append(open_classifier(folder).reference.limits)
    assert limits[0] == pytest.approx(limits[1])
    (folder / novelty.FILE).unlink()
    monkeypatch.setattr(novelty, "ENOUGH_PICTURES", 31)
    execution.describe_pictures(str(folder), half_hidden)
    assert not (folder / novelty.FILE).exists()
