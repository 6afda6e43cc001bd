import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import processes


def marco(*arguments):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.long
def test_the_published_classifier_is_explained_and_what_cannot_be_read_is_listed(real_images, tmp_path):
    from PIL import Image

    shutil.copy(real_images["crystals_10.jpeg"], tmp_path / "drop.jpeg")
    (tmp_path / "note.png").write_text("no image")
    output = tmp_path / "out"
    done = processes.run_marco("explain", "--output", output, "--class", "clear", "--samples", 2, "--raw", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 of 2 files could not be explained" in done.stderr
    with (output / "explained.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["class"], row["output"]) == ("Clear", "drop.png")
    assert float(row["score"]) == pytest.approx(0.0260091, abs=1e-4)
    with Image.open(output / "drop.png") as picture:
        assert picture.size == (599, 599)
    assert np.load(output / "drop.npy").shape == (599, 599)
    assert "note.png,not a JPEG, PNG" in (output / "explained.errors.csv").read_text().replace('"', "")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["explain", "--output", "out", "nowhere"], "no such file or folder: nowhere"),
        (["explain", "--output", "out", "--model", "nowhere", __file__], "no model in nowhere"),
        (["tflite", "--output", "out", "nowhere"], "no such file or folder: nowhere"),
        (["tflite", "--output", "out", "--model", "nowhere", __file__], "no model in nowhere"),
    ],
)
def test_a_wrong_request_is_reported_in_one_line_with_exit_status_2(arguments, reason):
    done = marco(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {reason}")
    assert len(done.stderr.splitlines()) == 1
