"""The whole compiled graph, step by step with the messages and files of the services (tests/fakes/step_services.py)."""

import errno
import graphlib
import logging
import os
import pickle
import re
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from components.steps import attempts, entrypoint
from tests import packages, processes, short_network
from tests.fakes import gcs_over_tls, step_services

pytestmark = [pytest.mark.slow, pytest.mark.long]

TINY = (
    "data.synthetic={images: 64, shorter_side: 160}",
    "recipe.steps=30",
    "recipe.batch_size=8",
    "recipe.evaluate_every=30",
    "recipe.checkpoint_every=10",
    "transform.shorter_side=152",
    "network.input_size=151",
    "network.depth_multiplier=0.1",
    "network.auxiliary=false",
    "thresholds={accuracy: 0.01}",
    "gate.evidence=false",
    "export.tflite=false",
)


def compile_tiny(folder, root, *changes):
    """Returns the package of the preset `local` cut short, with all that lasts below `root`."""
    from pipelines import compilation, configuration

    loaded = configuration.load("local", [*TINY, *changes])
    compilation.compile_for_kubeflow(loaded, root, folder / "local.yaml")
    return packages.read_package(folder / "local.yaml")[0]


def steps_of(service):
    """Returns the names of all steps, producers first."""
    order = {step: task.get("dependentTasks", []) for step, task in packages.tasks(service.package).items()}
    return list(graphlib.TopologicalSorter(order).static_order())


def run_steps(service, steps):
    for step in steps:
        print(f"step: {step}", flush=True)
        service.run(step)


def run_up_to_the_trainer(folder):
    package = compile_tiny(folder, str(folder / "shared"), f"cluster.volumes=[{{claim: shared, path: {folder}}}]")
    service = step_services.Kubeflow(package, folder)
    entrypoint._STAGED = service.staging()
    steps = steps_of(service)
    run_steps(service, steps[: steps.index("Trainer")])
    message = service.executor_input("Trainer")
    service.prepare(message)
    (folder / "state.pickle").write_bytes(pickle.dumps((service, message)))


def train(folder, killed):
    """Runs the Trainer; where `killed`, until its first checkpoint is there."""
    service, message = pickle.loads((folder / "state.pickle").read_bytes())

    def kill():
        while not list((folder / "shared/checkpoints").rglob("step-*.npz")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)

    if killed:
        threading.Thread(target=kill, daemon=True).start()
    entrypoint._STAGED = service.staging()
    logging.getLogger("marco_model").setLevel(logging.INFO)
    _, arguments = service.command("Trainer", message)
    entrypoint.main(arguments)


def run_after_the_trainer(folder):
    service, message = pickle.loads((folder / "state.pickle").read_bytes())
    entrypoint._STAGED = service.staging()
    service.finish("Trainer", message)
    steps = steps_of(service)
    run_steps(service, steps[steps.index("Trainer") + 1 :])
    for step, component in service.package["components"].items():
        for name in component.get("outputDefinitions", {}).get("artifacts", {}):
            uri, _ = service.artifacts[step, name]
            # TFX's Transform declares a cache that it does not write.
            written = any(path.is_file() for path in service.stored(uri).rglob("*"))
            assert written or name == "updated_analyzer_cache", f"{step} left {name} empty"
        uri, _ = service.artifacts[step, step_services.LOGS]
        assert service.stored(uri).is_file(), "the launcher's log was changed"


OPTIONS = {"modules": processes.PIPELINE, "before": short_network.use}


def run_process(function, folder):
    with processes.start(function, folder, **OPTIONS) as process:
        process.wait(900)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-8000:]


def test_every_step_of_the_local_graph_runs_as_kubeflow_runs_it(tmp_path, monkeypatch):
    """The Trainer is killed once, and its pod repeats it from its checkpoint."""
    trainings = []

    def start(command):
        trainings.append(processes.start(train, tmp_path, not trainings, **OPTIONS))
        return trainings[-1]

    run_process(run_up_to_the_trainer, tmp_path)
    monkeypatch.setattr(attempts.subprocess, "Popen", start)
    monkeypatch.setattr(attempts, "WAIT_SECONDS", 0.01)
    assert attempts.run(["python", "-m", "components.steps.entrypoint"], retries=2) == 0, trainings[-1].stderr[-8000:]
    assert [training.returncode for training in trainings] == [-signal.SIGKILL, 0]
    assert re.search(r"Resuming training from step [12]0 of 30", trainings[-1].stderr), trainings[-1].stderr[-3000:]
    run_process(run_after_the_trainer, tmp_path)
    assert (tmp_path / "shared/models/1").is_dir()


def run_on_vertex(folder):
    from marco_model import store

    root = "gs://runs/marco"
    package = compile_for_vertex(folder, root, f"tracking.uri=sqlite:///{folder}/mlflow.db")
    service = step_services.Vertex(package, root, folder)
    rename = os.rename

    def refusing(source, target, **options):
        # As Cloud Storage FUSE refuses it by default.
        if Path(source).is_dir():
            raise OSError(errno.EMFILE, "too many objects to be renamed", source)
        rename(source, target, **options)

    with mock.patch.object(os, "rename", refusing):
        run_steps(service, steps_of(service))
    for step, component in package["components"].items():
        for name in component.get("outputDefinitions", {}).get("artifacts", {}):
            uri, _ = service.artifacts[step, name]
            written = list(store.list_objects(uri))
            assert written or name == "updated_analyzer_cache", f"{step} left {name} empty"


def compile_for_vertex(folder, root, *changes):
    from pipelines import compilation, configuration

    loaded = configuration.load("local", [*TINY, *changes])
    compilation.compile_for_vertex(loaded, root, folder / "local.json")
    return packages.read_package(folder / "local.json")[0]


def test_every_step_of_the_local_graph_runs_as_vertex_ai_runs_it(tmp_path, gcs):
    gcs.bucket("runs")
    with gcs_over_tls.environment(gcs, tmp_path) as variables:
        with processes.start(run_on_vertex, tmp_path, environment={**os.environ, **variables}, **OPTIONS) as process:
            process.wait(900)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-8000:]
    assert any(name.endswith("saved_model.pb") for name in gcs.objects("gs://runs/marco/models/1/"))
    assert not [path for path in tmp_path.rglob("*") if "gs:" in str(path)], "gs:// was taken for a folder"
