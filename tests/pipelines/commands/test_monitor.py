import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

IMAGER = "HWMRI / HWMRI home system"


def marco(*arguments, cwd):
    command = [sys.executable, "-m", "pipelines.cli", "monitor", *map(str, arguments)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny network, exported."""
    import keras

    from marco_model.classifier import export
    from marco_model.labels import CLASSES

    keras.utils.set_random_seed(1)
    images = keras.Input((32, 32, 3))
    features = keras.layers.Conv2D(16, 5, strides=2, activation="relu")(images)
    logits = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(features))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    export(keras.Model(images, logits), str(folder), classes=CLASSES, input_size=32, metadata={"name": "tiny"})
    return folder


@pytest.fixture(scope="module")
def places(model, tmp_path_factory):
    """Shards, and folders of the same drops as they were and darkened."""
    import tensorflow as tf
    from PIL import Image

    from marco_data.synthetic import Settings, synthesize

    root = tmp_path_factory.mktemp("drops")
    settings = Settings(seed=9, shorter_side=64, institutions={"HWMRI": 1.0}, eval_share=0.0)
    synthesize(root / "set", 120, settings, processes=1)
    for name in ("same", "dark"):
        (root / name).mkdir()
    records = tf.data.TFRecordDataset([str(path) for path in (root / "set").glob("train-*")])
    for number, record in enumerate(records.as_numpy_iterator()):
        features = tf.train.Example.FromString(record).features.feature
        path = root / "same" / f"X{number:09d}000120050905{number % 24:02d}32.jpg"
        path.write_bytes(features["image/encoded"].bytes_list.value[0])
        Image.open(path).point(lambda value: value // 2).save(root / "dark" / path.name)
    return root


@pytest.mark.slow
def test_an_alarm_is_exit_status_4_and_none_is_0(places, model):
    from pipelines.cli import app

    def run(*arguments):
        return CliRunner().invoke(app, ["monitor", *map(str, arguments)], catch_exceptions=False)

    reference = places / "reference"
    result = run("reference", "--model", model, "--output", reference, "--sample", 80, places / "set")
    assert result.exit_code == 0, result.output
    assert f"{IMAGER}: 80 images of 120" in result.output
    for name, status, headline in (("same", 0, "no change"), ("dark", 4, "brightness: median")):
        output = places / f"report-{name}"
        options = ["--reference", reference, "--model", model, "--institution", "HWMRI", "--output", output]
        done = run("check", *options, places / name)
        assert done.exit_code == status, done.output
        assert f"{IMAGER}: {headline}" in done.output
        report = json.loads((output / "drift.json").read_text())
        assert report["alarm"] is (status == 4)
        assert (output / "drift.html").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["check", "--reference", "ref", "--model", "nowhere", "--output", "out", "."], "no model in nowhere"),
        (["reference", "--model", "nowhere", "--output", "out", "."], "no model in nowhere"),
        (
            ["check", "--reference", "ref", "--limits", "l.json", "--output", "out", "."],
            "l.json: unknown key 'brightness'",
        ),
    ],
)
def test_a_wrong_request_is_reported_in_one_line_with_exit_status_2(tmp_path, arguments, reason):
    (tmp_path / "l.json").write_text('{"brightness": 1}')
    done = marco(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {reason}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_reference_warns_of_imagers_with_too_few_images(places, model, tmp_path):
    from pipelines.cli import app

    naming = ["--imager", "*0032.jpg=Few", "--imager", "Lab"]
    arguments = ["monitor", "reference", "--model", model, "--output", tmp_path / "reference", *naming, places / "same"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Few: 5 images of 5" in result.output and "Lab: 115 images of 115" in result.output
    assert result.output.count("warning: ") == 1
    assert "warning: Few: a check needs 50 images of an imager" in result.output
