import csv

import numpy as np
import pytest
from PIL import Image

import marco_model
from marco_model.errors import InputError
from marco_scoring import prediction
from tests.fakes.classifier import Scripted as ScriptedClassifier


class MeanColours(ScriptedClassifier):
    """A classifier whose scores are the mean colours, so that each row can be checked against its file's own pixels."""

    classes = ("Red", "Model", "Blue")
    name = "colours"
    temperature = 1.0

    def __init__(self):
        self.batches = []

    def score(self, images):
        import tensorflow as tf

        self.batches.append(len(images))
        try:
            pixels = [tf.io.decode_jpeg(image, channels=3).numpy() for image in images]
        except tf.errors.InvalidArgumentError:
            raise InputError("does not decode: damaged") from None
        return np.array([image.mean(axis=(0, 1)) / 255 for image in pixels], np.float32).reshape(-1, 3)


@pytest.fixture
def files(tmp_path):
    colours = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (200, 10, 20), (0, 51, 102), (250, 240, 230), (1, 2, 3)]
    names = ["03c3_G6_ImagerDefaults_6.png", *(f"drop {index}.png" for index in range(1, 7))]
    for name, colour in zip(names, colours, strict=True):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    return [tmp_path / name for name in names], colours


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_each_file_has_its_own_row_in_order(files, tmp_path, batch_size):
    paths, colours = files
    outcome = prediction.predict(MeanColours(), paths, tmp_path / "out" / "scores.csv", batch_size)
    header, *body = rows(tmp_path / "out" / "scores.csv")
    assert header == [
        "path",
        "plate",
        "well",
        "drop",
        "class",
        "red",
        "model_score",
        "blue",
        "model",
        "inspection",
        "date",
        "flag",
        "bytes",
        "modified",
    ]
    assert [row[0] for row in body] == [str(path) for path in paths]
    assert body[0][1:4] == ["03c3", "G6", ""]
    for row, colour in zip(body, colours, strict=True):
        assert [float(score) * 255 for score in row[5:8]] == pytest.approx(colour, abs=1e-3)
        assert row[4] == MeanColours.classes[int(np.argmax(colour))]
        assert row[8] == "colours"
    assert body[0][9:11] == ["6", ""] and body[1][1:4] == ["", "", ""]
    assert outcome[:4] == ({"Red": 3, "Model": 1, "Blue": 3}, 0, 0, {"too small": 7})
    assert {row[11] for row in body} == {"too small"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.csv"]


def test_folders_name_plates_in_the_table(tmp_path):
    path = tmp_path / "plate 7" / "2026-03-02" / "A01_2.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)
    prediction.predict(MeanColours(), [path], tmp_path / "scores.csv")
    assert rows(tmp_path / "scores.csv")[1][1:4] == ["plate 7", "A01", "2"]
    assert rows(tmp_path / "scores.csv")[1][9:11] == ["", "2026-03-02"]


def test_broken_files_are_listed_and_the_others_are_scored(files, tmp_path):
    paths, _ = files
    damaged = paths[2].with_name("damaged.png")
    damaged.write_bytes(paths[2].read_bytes()[:60])
    text = paths[2].with_name("text.jpg")
    text.write_text("hello")
    files = [*paths[:2], damaged, text, *paths[2:]]
    outcome = prediction.predict(MeanColours(), files, tmp_path / "scores.csv", 4)
    assert outcome.failed == 2
    assert [row[0] for row in rows(tmp_path / "scores.csv")[1:]] == [str(path) for path in paths]
    assert rows(tmp_path / "scores.errors.csv") == [
        ["path", "reason"],
        [str(damaged), "does not decode: a PNG whose chunk IDAT is damaged or cut short"],
        [str(text), "not a JPEG, PNG, TIFF or BMP image"],
    ]
    prediction.predict(MeanColours(), paths, tmp_path / "scores.csv")
    assert not (tmp_path / "scores.errors.csv").exists()


def test_a_run_that_dies_leaves_the_scores_of_before(files, tmp_path):
    paths, _ = files
    output = tmp_path / "scores.csv"
    output.write_text("from before")

    class Dying(MeanColours):
        def score(self, images):
            if self.batches:
                raise MemoryError
            return super().score(images)

    with pytest.raises(MemoryError):
        prediction.predict(Dying(), paths, output, 2)
    assert output.read_text() == "from before"


def test_batches_are_full(files, tmp_path):
    classifier = MeanColours()
    prediction.predict(classifier, files[0], tmp_path / "scores.csv", 3)
    assert classifier.batches == [3, 3, 1]


@pytest.mark.long
def test_batches_with_a_damaged_image_take_no_memory_that_stays(real_images, tmp_path):
    """The published classifier in TensorFlow kept 20 MB for each."""
    resource = pytest.importorskip("resource")
    sound, cut = real_images["clear_220.jpeg"], tmp_path / "cut.jpeg"
    cut.write_bytes(sound.read_bytes()[:30_000])
    peaks = []

    def observe(path, image):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    files = []
    for number in range(12):
        files += [tmp_path / f"{number}-{name}.jpeg" for name in ("a", "cut", "b")]
        for path in files[-3:]:
            path.symlink_to(cut if "cut" in path.name else sound)
    outcome = prediction.predict(marco_model.open_published_classifier(), files, tmp_path / "scores.csv", 3, observe)
    assert outcome.failed == 12 and sum(outcome.by_class.values()) == 24
    assert peaks[-1] - peaks[len(peaks) // 3] < 60
