"""The Python API: files, folders and bytes become the table that `marco predict` writes."""

import csv
import io
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import marco_model
import marco_scoring
from marco_model import model_directory
from marco_scoring import prediction, score_table


class Brightness(marco_model.LoadedClassifier):
    """Bright images are Crystals, dark ones Clear; refuses what does not decode, as a whole batch."""

    def __init__(self, **metadata):
        super().__init__(None, "brightness", marco_model.CLASSES, metadata, None)

    def score(self, image_bytes):
        scores = np.full([len(image_bytes), 4], 0.05, np.float32)
        for row, encoded in zip(scores, image_bytes, strict=True):
            try:
                light = np.asarray(Image.open(io.BytesIO(encoded)).convert("L")).mean() / 255
            except OSError:
                raise marco_model.InputError("does not decode: cut") from None
            row[:2] = 0.9 * (1 - light), 0.9 * light
        return scores


def encoded(shade, kind="JPEG"):
    buffer = io.BytesIO()
    pixels = np.clip(np.random.default_rng(0).normal(shade, 8, (120, 160)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def plate(tmp_path):
    """Five images of a plate, of which one is cut and one is text."""
    folder = tmp_path / "plates"
    folder.mkdir()
    for well, shade in (("A1", 40), ("A2", 200), ("B1", 220)):
        (folder / f"03c3_{well}_ImagerDefaults_6.jpg").write_bytes(encoded(shade))
    (folder / "03c3_B2_ImagerDefaults_6.jpg").write_bytes(encoded(90)[:300])
    (folder / "03c3_B3_ImagerDefaults_6.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_a_folder_becomes_the_table_of_marco_predict(plate, tmp_path):
    classifier = Brightness(temperature=0.5)
    with pytest.warns(
        UserWarning, match=r"2 of 5 images cannot be scored, .*03c3_B2_ImagerDefaults_6\.jpg: the image header"
    ):
        table = marco_scoring.score_images(plate, classifier)
    prediction.predict(classifier, sorted(plate.glob("*.jpg")), tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    for row, expected in zip(table, written, strict=True):
        shown = {name: f"{cell:.7f}" if isinstance(cell, float) else cell for name, cell in row.items()}
        assert shown == {name: cell for name, cell in expected.items() if name not in score_table.STAMP_COLUMNS}
    assert [row["well"] for row in table] == ["A1", "A2", "B1"]
    with (tmp_path / "scores.errors.csv").open(newline="", encoding="utf-8") as file:
        assert [list(row.values()) for row in csv.DictReader(file)] == [list(failure) for failure in table.failures]
    assert table.left_out == "passed over: 1 .txt"
    assert repr(table) == "<ScoredImages by brightness: 3 (Clear 1, Crystals 2, Other 0, Precipitate 0); 2 failed>"


def test_the_table_as_data_frame_and_array(plate):
    with pytest.warns(UserWarning):
        table = marco_scoring.score_images([str(plate)], Brightness())
    frame = table.to_pandas()
    assert list(frame.columns) == score_table.columns(marco_model.CLASSES)
    assert frame.sort_values("crystals").iloc[-1]["well"] == "B1"
    assert frame["date"].isna().all()
    assert table.scores.dtype == np.float32
    np.testing.assert_allclose(table.scores, frame[["clear", "crystals", "other", "precipitate"]], atol=1e-7)
    pd.testing.assert_frame_equal(frame[["path", "crystals"]], pd.DataFrame(table.rows)[["path", "crystals"]])


def test_bytes_are_scored_by_their_number_whatever_their_format():
    images = [encoded(40), b"no image", encoded(200, "TIFF"), encoded(220, "PNG")]
    with pytest.warns(UserWarning, match=r"1 of 4 images .*images\[1\]: not a JPEG, PNG, TIFF or BMP image"):
        table = marco_scoring.score_images(images, Brightness(), batch_size=3)
    assert [(row["path"], row["class"]) for row in table] == [
        ("images[0]", "Clear"),
        ("images[2]", "Crystals"),
        ("images[3]", "Crystals"),
    ]
    assert marco_scoring.score_images(images[0], Brightness()).rows[0]["plate"] == ""


def test_no_images_are_an_empty_table(tmp_path):
    for nothing in ([], tmp_path):
        table = marco_scoring.score_images(nothing, Brightness())
        assert (len(table), table.failures, table.scores.shape) == (0, [], (0, 4))
        assert table.to_pandas().empty


def test_wrong_paths_and_mixed_inputs_are_refused(plate):
    with pytest.raises(marco_model.InputError, match="no such file or folder: plats"):
        marco_scoring.score_images([plate, "plats"], Brightness())
    with pytest.raises(marco_model.InputError, match="1 of 2 images are bytes, the others paths; give one kind"):
        marco_scoring.score_images([plate, b""], Brightness())


def test_names_state_the_place(tmp_path):
    (tmp_path / "x.C7.jpg").write_bytes(encoded(40))
    table = marco_scoring.score_images(tmp_path, Brightness(), names=r"(?P<plate>x)\.(?P<well>[A-H]\d)")
    assert (table.rows[0]["plate"], table.rows[0]["well"]) == ("x", "C7")


def test_bits_of_the_camera_are_stated(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((300, 300), 1020, np.uint16)).save(path)
    for source in (path, path.read_bytes()):
        for bits, light in ((None, 1020 >> 2), (12, 1020 >> 4), (16, 1020 >> 8)):
            table = marco_scoring.score_images(source, Brightness(), bits=bits)
            assert table.scores[0, 1] == pytest.approx(0.9 * light / 255, abs=1e-6)
    with pytest.raises(marco_model.InputError, match="bits is 7; give a number from 8 to 16"):
        marco_scoring.score_images(path, Brightness(), bits=7)


def test_the_light_install_is_told_how_to_get_pandas(plate, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = marco_scoring.score_images(next(plate.glob("*A1*")), Brightness())
    with pytest.raises(marco_model.InputError, match="pip install pandas"):
        table.to_pandas()


def test_the_published_classifier_is_the_default_and_a_folder_opens_a_model(real_images, tmp_path):
    image = real_images["crystals_10.jpeg"]
    shutil.copy(image, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = marco_scoring.score_images(tmp_path)
    np.testing.assert_allclose(table.rows[0]["crystals"], 0.9156436, atol=1e-5)
    again = marco_scoring.score_images([image], model_directory.published_directory())
    np.testing.assert_allclose(again.scores, table.scores, atol=1e-6)


def test_a_script_prints_nothing_and_imports_no_tensorflow(real_images):
    code = (
        "import sys, marco_scoring; table = marco_scoring.score_images(sys.argv[1]); "
        "assert not {'tensorflow', 'pandas', 'tfx', 'mlflow'} & set(sys.modules); print(table)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(real_images["crystals_10.jpeg"])]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert result.stdout == "<ScoredImages by marco-2018: 1 (Clear 0, Crystals 1, Other 0, Precipitate 0)>\n"
