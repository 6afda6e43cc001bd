import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import processes

HEADER = "path,plate,well,drop,class,clear,crystals,other,precipitate,model,inspection,date,flag,bytes,modified"


def marco(*arguments, cwd=None):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.slow
def test_released_then_predict_gives_the_published_scores(real_images, tmp_path):
    result = processes.run_marco("released", "--output", tmp_path / "released")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "plate"
    folder.mkdir()
    for name in ("clear_220.jpeg", "crystals_10.jpeg", "precipitate_216.jpeg"):
        shutil.copy(real_images[name], folder / name.upper())
    (folder / "half.jpg").write_bytes(real_images["clear_220.jpeg"].read_bytes()[:30_000])
    output = tmp_path / "scores.csv"
    scored = processes.run_marco("predict", "--model", tmp_path / "released", "--output", output, folder)
    assert scored.returncode == 1, scored.stderr
    assert "1 of 4 files could not be scored" in scored.stderr
    assert output.read_text().splitlines()[0] == HEADER
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["Clear", "Crystals", "Crystals"]
    scores = [[float(row[name]) for name in ("clear", "crystals", "other", "precipitate")] for row in rows]
    expected = [
        (0.9133686, 0.0247527, 0.0256348, 0.0362439),
        (0.0260091, 0.9156436, 0.0293832, 0.0289640),
        (0.4092869, 0.4465934, 0.0921923, 0.0519273),
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert {row["model"] for row in rows} == {"marco-released"}
    with (tmp_path / "scores.errors.csv").open(newline="") as file:
        (error,) = csv.DictReader(file)
    assert error["path"] == str(folder / "half.jpg")
    assert error["reason"].startswith("does not decode")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["."], "no images in ."),
        (["--model", "nowhere", "drop.png"], "no model in nowhere"),
        (["--explain", "3", "drop.png"], "--explain, --thumbnail-size and --crystal-class are of a report"),
        (["--report", ".", "drop.png"], "--report . is a folder"),
        (["--report", "scores.csv", "drop.png"], "--report and --output are both scores.csv"),
    ],
)
def test_a_wrong_request_is_reported_in_one_line_with_exit_status_2(tmp_path, arguments, reason):
    if "drop.png" in arguments:
        (tmp_path / "drop.png").touch()
    done = marco("predict", "--output", "scores.csv", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {reason}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "scores.csv").exists()
