import contextlib
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient
from scipy.special import softmax

from components import leave_out
from components.mlflow_runs import TRAINING_FILE
from components.settings import Transform
from components.trainer import execution, job as jobs
from marco_model import example_files, preprocessing
from marco_model.calibration import expected_calibration_error, fit_temperature
from marco_model.errors import InputError
from marco_model.load import open_classifier
from marco_model.recipe import Engine
from pipelines import configuration
from tests import processes, short_network, small_training

pytestmark = pytest.mark.usefixtures("short_network")


@pytest.fixture
def small_job(tmp_path):
    return small_training.small_job(tmp_path)


def with_heads(job, folder):
    """Returns the job with a head of sources and one of raw labels, without the images of CSIRO."""
    recipe = dataclasses.replace(job.recipe, adversarial_weight=0.5, raw_weight=0.3)
    targets = example_files.find_targets(recipe, job.train_files, {0: "clear drop", 1: "needles"})
    path = str(folder / leave_out.SOURCES_FILE)
    pairs = [name for name in small_training.INSTITUTIONS for _ in range(2)]
    leave_out.write_sources(path, {"train": pairs * 4, "validation": [*pairs, *pairs[:2]]})
    left_out = jobs.LeftOut(attribute="institution", value="CSIRO", sources=path)
    return job.model_copy(update={"recipe": recipe, "targets": targets, "left_out": left_out})


def train_on_two_devices(path):
    """Trains the job of a file on two logical devices."""
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    execution.run(jobs.read(path))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("heads", [False, True], ids=["plain", "heads, a source left out"])
def test_a_chief_two_workers_and_a_parameter_server_make_a_model_that_another_engine_takes_up(
    small_job, tmp_path, heads
):
    job = with_heads(small_job, tmp_path) if heads else small_job
    job.write()
    path = f"{job.checkpoints}/job.json"
    counts = {"chief": 1, "worker": 2, "ps": 1}
    cluster = {name: [f"127.0.0.1:{processes.free_port()}" for _ in range(count)] for name, count in counts.items()}
    with contextlib.ExitStack() as replicas:
        for name, hosts in cluster.items():
            for index in range(len(hosts)):
                config = json.dumps({"cluster": cluster, "task": {"type": name, "index": index}})
                environment = os.environ | {"TF_CONFIG": config}
                options = {"environment": environment, "merged": True, "before": short_network.use}
                replica = processes.marco("train", path, **options)
                replicas.enter_context(replica)
                if name == "chief":
                    chief = replica
        assert chief.wait(500) == 0, chief.stdout[-2000:]
    trained = json.loads((tmp_path / "artifact" / TRAINING_FILE).read_text())
    assert (trained["steps"], trained["resumed_from"]) == (8, 0)
    assert sum(trained["streams"].values()) == 8
    if not heads:
        assert accuracy(job, tmp_path) == trained["accuracy"]
    assert open_classifier(job.model_directory).temperature == trained["calibration"]["temperature"]

    changes = {
        "engine": Engine(kind="mirrored"),
        "recipe": dataclasses.replace(job.recipe, steps=10),
        "key": "longer",
        "tflite": True,
        "model_directory": str(tmp_path / "longer" / "Format-Serving"),
    }
    job.model_copy(update=changes).write()
    with processes.start(train_on_two_devices, path, before=short_network.use) as process:
        assert process.wait(300) == 0, process.stderr[-3000:]
    assert json.loads((tmp_path / "longer" / TRAINING_FILE).read_text())["resumed_from"] == 8
    checked = json.loads((tmp_path / "longer" / "Format-Serving" / "assets.extra" / "tflite.json").read_text())
    assert (checked["images"], checked["other_class"]) == (8, 0)
    saved = tf.saved_model.load(str(tmp_path / "longer" / "Format-Serving"))
    assert ("serving_raw" in saved.signatures) == heads


def test_images_of_the_source_that_is_left_out_are_in_neither_split(small_job, tmp_path):
    whole = execution.read_records(small_job)
    path = str(tmp_path / leave_out.SOURCES_FILE)
    leave_out.write_sources(path, {"train": ["Merck", "CSIRO", "HWMRI"] * 8, "validation": ["CSIRO", "Merck"] * 4})
    left_out = jobs.LeftOut(attribute="institution", value="CSIRO", sources=path)
    records = execution.read_records(small_job.model_copy(update={"left_out": left_out}))
    assert (len(whole.train), len(whole.validation)) == (24, 8)
    assert records.train.offset.tolist() == [place for n, place in enumerate(whole.train.offset) if n % 3 != 1]
    assert records.validation.offset.tolist() == whole.validation.offset[1::2].tolist()
    recipe = dataclasses.replace(small_job.recipe, adversarial_weight=0.1, unlabelled=("CSIRO",))
    unlabelled = small_job.model_copy(update={"left_out": left_out, "recipe": recipe})
    assert [len(index) for index in execution.read_records(unlabelled)] == [24, 8]
    # An imager of that name hides other labels.
    recipe = dataclasses.replace(recipe, sources="imager")
    assert len(execution.read_records(unlabelled.model_copy(update={"recipe": recipe})).train) == 16


def test_the_run_of_a_training_says_what_it_left_out(small_job):
    records = execution.read_records(small_job)
    left_out = jobs.LeftOut(attribute="institution", value="CSIRO")
    with execution.record_run(small_job.model_copy(update={"left_out": left_out}), records) as run:
        assert run.tags()["left_out"] == "institution CSIRO"
    with execution.record_run(small_job.model_copy(update={"key": "whole"}), records) as run:
        assert "left_out" not in run.tags()


def test_the_values_that_the_rule_for_batch_sizes_makes_are_recorded_and_the_network_gets_its_own(small_job):
    assert execution.carried_over(small_job) == {}
    assert execution.effective_network(small_job) == small_job.network
    carried = dataclasses.replace(small_job.recipe, stated_for_batch=2)
    job = small_job.model_copy(update={"recipe": carried})
    assert execution.carried_over(job)["effective"] == {
        "steps": 4,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "learning_rate": 0.02,
        "average_decay": 0.25,
        "batch_norm_momentum": 0.25,
    }
    assert execution.effective_network(job) == dataclasses.replace(job.network, batch_norm_momentum=0.25)


@pytest.mark.long
@pytest.mark.slow
def test_the_gpu_presets_engine_trains_what_the_rule_makes_of_a_recipe(small_job, tmp_path):
    carried = dataclasses.replace(small_job.recipe, stated_for_batch=2, steps=16)
    engine = configuration.load("gpu").engine
    execution.run(small_job.model_copy(update={"recipe": carried, "engine": engine}))
    trained = json.loads((tmp_path / "artifact" / TRAINING_FILE).read_text())
    assert trained["steps"] == 8
    parameters = MlflowClient(small_job.tracking.uri).get_run(trained["mlflow_run_id"]).data.params
    assert (parameters["recipe.steps"], parameters["effective.steps"]) == ("16", "8")
    assert parameters["effective.batch_norm_momentum"] == "0.25"


@pytest.mark.parametrize("count", [0, 3, 4])
def test_a_training_on_fewer_gpus_than_were_asked_for_is_refused(monkeypatch, count):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * count)
    execution.check_gpus(count)
    with pytest.raises(InputError, match=rf"sees {count} of the {count + 1} GPUs"):
        execution.check_gpus(count + 1)


@pytest.mark.parametrize("engine", ["one_device", "mirrored", "multi_worker"])
def test_missing_gpus_end_a_training_before_an_image_is_read_or_a_peer_is_called(small_job, monkeypatch, engine):
    def fail(*_):
        raise AssertionError("the training went on")

    for module, name in ((execution, "read_records"), (execution.engines, "start"), (execution, "record_run")):
        monkeypatch.setattr(module, name, fail)
    job = small_job.model_copy(update={"engine": Engine(kind=engine), "gpus": 1})
    with pytest.raises(InputError, match=r"sees 0 of the 1 GPUs that were asked for .*make image ACCELERATOR=gpu"):
        execution.run(job)


@pytest.mark.parametrize(
    ("wide", "window_share", "warns"), [(1.0, None, True), (2.1, None, False), (1.0, (0.7, 1.0), False)]
)
def test_native_windows_that_show_little_of_the_images_are_reported(
    small_job, caplog, monkeypatch, wide, window_share, warns
):
    """The images have 160 pixels, the network takes 151."""
    monkeypatch.setattr(execution, "_WIDE", wide)
    job = small_job.model_copy(update={"recipe": dataclasses.replace(small_job.recipe, window_share=window_share)})
    execution.check_windows(job, execution.read_records(job).train)
    assert ("a shorter side of 160 pixels or more" in caplog.text) == warns


@pytest.mark.slow
@pytest.mark.parametrize("window_share", [None, (0.7, 1.0)])
def test_a_damaged_file_of_examples_is_named_with_the_fix(small_job, window_share):
    recipe = dataclasses.replace(small_job.recipe, window_share=window_share)
    (file,) = small_job.train_files
    with Path(file).open("r+b") as stream:
        stream.seek(20)
        stream.write(b"\xff" * 20)
    with pytest.raises(InputError, match=rf"{file} is damaged at byte 0; delete its folder and run the same command,"):
        execution.run(small_job.model_copy(update={"engine": Engine(), "recipe": recipe}))


@pytest.mark.slow
def test_the_temperature_is_fitted_on_the_evaluation_examples_and_stored_with_every_model(
    small_job, tmp_path, monkeypatch
):
    monkeypatch.setattr("marco_model.calibration.ENOUGH_EXAMPLES", 8)
    execution.run(small_job.model_copy(update={"engine": Engine(), "transform": Transform(shorter_side=155)}))
    trained = json.loads((tmp_path / "artifact" / TRAINING_FILE).read_text())
    calibration = trained["calibration"]
    network = open_classifier(small_job.model_directory)
    # The examples are Transform's output, so they are scored without the shrinking that is exported.
    images = preprocessing.evaluation_batch(
        tf.constant(small_training.write_examples(tmp_path / "again.tfrecord", 8)), 151
    )
    logits, labels = network.logits(images).numpy(), np.arange(8) % 2
    assert calibration["temperature"] == pytest.approx(fit_temperature(logits, labels, start=1.0), rel=1e-3)
    assert network.temperature == calibration["temperature"]
    assert calibration["error_before"] == pytest.approx(
        expected_calibration_error(softmax(logits, axis=1), labels), abs=1e-3
    )
    metrics = MlflowClient(small_job.tracking.uri).get_run(trained["mlflow_run_id"]).data.metrics
    assert {name.partition("/")[2]: metrics[name] for name in metrics if name.startswith("calibration/")} == calibration


def accuracy(job, folder):
    scores = open_classifier(job.model_directory).score(small_training.write_examples(folder / "again.tfrecord", 8))
    return np.mean(scores.argmax(axis=1) == np.arange(8) % 2)
