"""The steps Tuner and Trainer on small artifacts: the training uses the result of the search."""

import dataclasses
import json
import pathlib

import pytest

from components.settings import Tuning
from components.trainer.job import TrainingJob
from marco_model.errors import InputError
from marco_model.load import open_classifier
from marco_model.recipe import Engine
from tests import small_training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_network")]

PARAMETERS = {"source": "gs://bucket/marco", "fingerprint": "0a", "initial": "random", "steps": ""}
TUNING = Tuning(space={"recipe.learning_rate": {"choices": [0.002, 0.003]}}, oracle="random", trials=1, steps=1)


def artifact(kind, uri):
    from tfx.types import standard_artifacts

    result = getattr(standard_artifacts, kind)()
    result.uri = str(uri)
    return result


def run(step, inputs, outputs, job, **parameters):
    from components.steps import trainer

    executor = getattr(trainer, step).EXECUTOR_SPEC.executor_class
    properties = {"training": job.model_dump_json(), **PARAMETERS, **parameters}
    inputs, outputs = ({name: [value] for name, value in values.items()} for values in (inputs, outputs))
    executor(executor.Context(unique_id="1")).Do(inputs, outputs, properties)


@pytest.fixture
def job(tmp_path):
    """The job as the graph describes it: bound to no data."""
    job = small_training.small_job(tmp_path)
    changes = {
        "engine": Engine(),
        "key": "",
        "train_files": [],
        "validation_files": [],
        "model_directory": "",
        "name": "small",
    }
    return job.model_copy(update=changes)


@pytest.fixture
def inputs(tmp_path, job):
    from tfx.types import artifact_utils

    examples = artifact("Examples", tmp_path / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    for split in ("train", "eval"):
        folder = tmp_path / "examples" / f"Split-{split}"
        folder.mkdir(parents=True)
        (tmp_path / f"{split}.tfrecord").rename(folder / "transformed_examples-00000-of-00001")
    return {"examples": examples, "transform_graph": artifact("TransformGraph", tmp_path / "graph")}


@pytest.mark.long
def test_the_trainer_takes_what_the_tuner_found(tmp_path, job, inputs):
    job = job.model_copy(update={"tuning": TUNING})
    best = artifact("HyperParameters", tmp_path / "best")
    results = artifact("TunerResults", tmp_path / "results")
    run("Tuner", inputs, {"best_hyperparameters": best, "tuner_results": results}, job)
    trials = json.loads((tmp_path / "results" / "tuner_results.json").read_text())
    (rate,) = [trial["recipe.learning_rate"] for trial in trials]
    model = artifact("Model", tmp_path / "model")
    run("Trainer", {**inputs, "hyperparameters": best}, {"model": model}, job, steps="2")
    assert open_classifier(tmp_path / "model" / "Format-Serving").classes == small_training.CLASSES
    trained = TrainingJob.model_validate_json(read_job(tmp_path, "small"))
    assert trained.recipe == dataclasses.replace(job.recipe, steps=2, learning_rate=rate)
    assert trained.data.source == PARAMETERS["source"]
    assert trained.checkpoints.endswith(f"/{trained.key}") and trained.name == f"small-{trained.key[:8]}"
    assert json.loads((tmp_path / "model" / "training.json").read_text())["steps"] == 2


def read_job(folder, name):
    (text,) = [path.read_text() for path in pathlib.Path(folder).glob("checkpoints/*/job.json")]
    assert json.loads(text)["name"].startswith(name)
    return text


def test_a_job_without_a_search_cannot_be_searched(tmp_path, job, inputs):
    outputs = {"best_hyperparameters": artifact("HyperParameters", tmp_path / "best")}
    outputs["tuner_results"] = artifact("TunerResults", tmp_path / "results")
    with pytest.raises(InputError, match=r"the job has no tuning; set tuning\.space"):
        run("Tuner", inputs, outputs, job)
