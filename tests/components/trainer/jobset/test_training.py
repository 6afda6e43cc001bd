"""Real training on the replicas of a JobSet: `marco train` in the processes that the manifest describes."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from components.machines import Placement, Replicas, Volume
from components.mlflow_runs import TRAINING_FILE
from components.trainer import job as jobs, jobset
from components.trainer.jobset_api import Pace
from marco_model import checkpoints
from marco_model.load import open_classifier
from marco_model.network import Network
from marco_model.recipe import Engine, Recipe
from tests import small_training, stores
from tests.small_training import write_examples

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_network")]

PACE = Pace(look=0.5, beat=0.5, silence=6, kept=1, grace=60, gone=60.0, gone_at_signal=60.0)


@pytest.fixture
def job(tmp_path):
    step = tmp_path / "step"
    step.mkdir()
    write_examples(step / "train.tfrecord", 24)
    write_examples(step / "eval.tfrecord", 8)
    shared = tmp_path / "shared"
    shared.mkdir()
    return small_training.job(
        key="0a1b",
        network=Network(input_size=151, depth_multiplier=0.1, auxiliary=False, batch_norm_momentum=0.5),
        recipe=Recipe(
            steps=1, batch_size=4, learning_rate=1e-4, evaluate_every=1, checkpoint_every=1, average_decay=0.5
        ),
        engine=Engine(kind="multi_worker", synchronized_batch_norm=False),
        tracking=jobs.TrackingServer(uri=stores.local_store(shared), experiment="tests"),
        data=jobs.DataSet(source=str(tmp_path), fingerprint="0"),
        train_files=[str(step / "train.tfrecord")],
        validation_files=[str(step / "eval.tfrecord")],
        checkpoints=f"{shared}/checkpoints/0a1b",
        model_directory=str(step / "model" / "Format-Serving"),
    )


@pytest.fixture
def placement(tmp_path):
    shared = str(tmp_path / "shared")
    return Placement(shared=shared, volumes=(Volume(claim="marco-shared", path=shared),), replicas=Replicas(workers=2))


def read_training(job):
    return json.loads((pathlib.Path(job.model_directory).parent / TRAINING_FILE).read_text())


@pytest.mark.long
def test_a_killed_step_leaves_nothing_and_the_two_workers_of_its_retry_continue_and_write_the_model(
    start_cluster, start_step, job, placement, wait_until, tmp_path
):
    """tests/marco_model/engines shows, without a JobSet, that several workers take the same steps as one."""
    cluster = start_cluster()
    recipe = dataclasses.replace(job.recipe, steps=100_000, evaluate_every=50_000, checkpoint_every=5)
    endless = job.model_copy(update={"recipe": recipe})

    def saved():
        return max(checkpoints.saved_steps(job.checkpoints), default=0)

    step = start_step(endless, placement, PACE)
    wait_until(saved, 400)
    step.kill()
    step.wait()
    wait_until(lambda: not cluster.jobsets and not cluster.alive(), 120)
    # Both missed the heartbeat, saved their step, and ended as on preemption.
    assert [pod.status() for pod in cluster.seen_pods] == [143, 143], cluster.seen_pods[0].lines[-5:]
    stopped = saved()
    message = f"training stopped at step {stopped} of {recipe.steps}, which is saved"
    assert any(message in text for pod in cluster.seen_pods for _, text in pod.lines), cluster.seen_pods[0].lines[-5:]

    # In an experiment of its own, since MLflow's parameters never change and this one has fewer steps.
    changes = {
        "recipe": dataclasses.replace(recipe, steps=stopped + 2),
        "tracking": job.tracking.model_copy(update={"experiment": "the rest"}),
    }
    rest = job.model_copy(update=changes)
    lines = []
    jobset.run(rest, placement, pace=PACE, show=lines.append)
    assert not cluster.jobsets
    assert not cluster.alive()
    assert any(f"Training: {stopped + 2}/{stopped + 2} steps" in line for line in lines), lines
    record = read_training(job)
    assert (record["resumed_from"], record["steps"]) == (stopped, stopped + 2)
    scores = open_classifier(job.model_directory).score(write_examples(tmp_path / "again.tfrecord", 8))
    assert np.mean(scores.argmax(axis=1) == np.arange(8) % 2) == record["accuracy"]
