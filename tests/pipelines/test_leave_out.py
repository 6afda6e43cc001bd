"""Leave one source out: as packages, as a user runs it here, killed in a training, and as Kubeflow runs its steps."""

import itertools
import json
import os
import re
import signal
import time

import numpy as np
import pytest

from components import evaluations
from components.steps import entrypoint
from marco_model.errors import InputError
from tests import packages, processes, short_network
from tests.fakes import step_services
from tests.pipelines import test_cluster_graph as graphs, test_local_runner as runs

NAMES = ("CSIRO", "Merck")
CHANGE = f"leave_out={{attribute: institution, values: [{', '.join(NAMES)}]}}"
COPIES = {f"{step}-{number}-{name}" for number, name in enumerate(NAMES, 1) for step in ("Trainer", "Evaluator")}
ADDED = {"Sources", "LeaveOneOut", "LeaveOneOut-1-CSIRO", *COPIES}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_package_has_a_training_for_each_source_beside_the_whole_one(tmp_path, compiled, ending):
    resources = "cluster.steps.Trainer={cpu: 7, memory: 9Gi}"
    (package, *_) = packages.write_package("local", tmp_path / f"package.{ending}", CHANGE, resources)
    without, tasks = compiled.pipeline("local.yaml"), packages.tasks(package)
    assert set(tasks) == set(packages.tasks(without)) | ADDED
    whole = packages.constants(package, "Trainer")["training"]
    assert whole == packages.constants(without, "Trainer")["training"]
    for number, name in enumerate(NAMES, 1):
        step = f"Trainer-{number}-{name}"
        training = packages.constants(package, step)["training"]
        assert training["left_out"] == {"attribute": "institution", "value": name, "sources": ""}
        assert {key for key in training if training[key] != whole[key]} == {"left_out", "name", "tflite"}
        assert packages.containers(package)[step]["resources"]["cpuLimit"] == 7.0
        # It waits for no other training.
        assert not [other for other in tasks[step]["dependentTasks"] if other.startswith("Trainer")]
        assert "Data" in tasks[step]["dependentTasks"]
    assert "Sources" not in tasks["Trainer"]["dependentTasks"]
    published = {step for step, task in tasks.items() if "Pusher" in step or "Gate" in step}
    assert not {step for step in published if COPIES & set(tasks[step]["dependentTasks"])}
    # Argo's names of tasks.
    assert all(re.fullmatch(r"[a-zA-Z0-9](-?[a-zA-Z0-9])*", step) for step in tasks)


@pytest.mark.slow
def test_trainings_on_several_nodes_run_one_after_another(tmp_path):
    volume = "shared: /shared/marco, volumes: [{claim: marco-shared, path: /shared}]"
    replicas = ("engine.kind=multi_worker", f"cluster={{{volume}, replicas: {{workers: 2}}}}")
    (package, *_) = packages.write_package("local", tmp_path / "package.yaml", CHANGE, *replicas)
    trainers = ["Trainer", *(f"Trainer-{number}-{name}" for number, name in enumerate(NAMES, 1))]
    for before, step in itertools.pairwise(trainers):
        assert before in packages.tasks(package)[step]["dependentTasks"]


@pytest.mark.slow
def test_a_package_needs_the_names_of_what_is_left_out(tmp_path):
    with pytest.raises(
        InputError, match=r"leave_out names no imager, and a package needs them: --leave-out imager=NAM"
    ):
        packages.write_package("local", tmp_path / "package.yaml", "leave_out={attribute: imager}")


@pytest.fixture(scope="module")
def away_run(tmp_path_factory):
    """Runs once until the second training without a source has a checkpoint, kills that, and runs twice to the end."""
    output, elsewhere = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("elsewhere")
    options = ("--leave-out", "institution=CSIRO,Merck", "--name", "new lamp")
    changes = {"gate.smallest_slice": 3}
    with runs.start(output, elsewhere, *options, **changes) as first:
        deadline = time.monotonic() + 400
        while len({path.parent for path in output.glob("checkpoints/*/step-*.npz")}) < 3 and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(first.pid, signal.SIGKILL)
        assert first.wait(60) == -signal.SIGKILL, first.stdout
    second = runs.wait_for(runs.start(output, elsewhere, *options, **changes))
    assert second.returncode == 0, second.stdout
    summary = json.loads((output / "summary.json").read_text())
    plain = runs.wait_for(runs.start(output, elsewhere, **changes))
    assert plain.returncode == 0, plain.stdout
    return output, elsewhere, second.stdout, summary, json.loads((output / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.long
def test_the_table_is_of_models_that_saw_no_image_of_the_source(away_run):
    output, elsewhere, shown, summary, _ = away_run
    content = summary["leave_out"]
    assert [row["value"] for row in content["rows"]] == list(NAMES)
    home = evaluations.read_predictions(str(output / summary["evaluation"]))
    right = np.stack(list(home["scores"])).argmax(axis=1) == home["label"].to_numpy()
    tags = {run.data.tags.get("left_out"): run for run in runs.runs_in(elsewhere)}
    whole = tags.pop(None)
    assert whole.info.run_id == summary["mlflow_run_id"]
    for row in content["rows"]:
        of_source = (home["institution"] == row["value"]).to_numpy()
        assert row["images"] == of_source.sum()
        assert row["accuracy"]["home"]["share"] == pytest.approx(right[of_source].mean())
        run = tags.pop(f"institution {row['value']}")
        assert run.data.metrics[f"eval/institution/{row['value']}/accuracy"] == row["accuracy"]["away"]["share"]
        assert run.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert run.info.run_name == f"new lamp, without {row['value']}"
        # As many images less as the source has: this project's own count, from the manifest of the drawn set.
        (whole_data, own) = (json.loads(each.inputs.dataset_inputs[0].dataset.profile) for each in (whole, run))
        manifest = json.loads((output / "data" / "synthetic.json").read_text())
        learned = sum(whole_data.values()) - sum(own.values())
        assert learned == manifest["counts"]["institution"][row["value"]] - row["images"]
        assert whole_data["train"] > own["train"] > 0
    assert not tags
    assert "At home and away" in (output / "leave_out.html").read_text()
    assert "CSIRO" in shown


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_training_without_a_source_is_resumed_and_the_whole_one_is_reused_without_it(away_run):
    _, _, shown, summary, plain = away_run
    assert re.search(r"Trainer-2-Merck(.|\n)*Resuming training from step \d+ of 40", shown)
    assert {"Trainer", "Trainer-1-CSIRO", "Sources"} <= set(summary["reused"])
    assert summary["model_path"] == plain["model_path"]
    assert "leave_out" not in plain
    assert set(plain["reused"]) == set(plain["seconds"]) == set(summary["seconds"]) - ADDED


def run_as_kubeflow(folder):
    package = graphs.compile_tiny(
        folder, str(folder / "shared"), f"cluster.volumes=[{{claim: shared, path: {folder}}}]", CHANGE
    )
    service = step_services.Kubeflow(package, folder)
    entrypoint._STAGED = service.staging()
    graphs.run_steps(service, graphs.steps_of(service))
    uri, _ = service.artifacts["LeaveOneOut", "report"]
    content = json.loads((service.stored(uri) / "leave_out.json").read_text())
    assert [row["value"] for row in content["rows"]] == list(NAMES)


@pytest.mark.slow
@pytest.mark.long
def test_every_step_runs_as_kubeflow_runs_it(tmp_path):
    options = {"modules": processes.PIPELINE, "before": short_network.use}
    with processes.start(run_as_kubeflow, tmp_path, **options) as process:
        process.wait(500)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-8000:]
    assert (tmp_path / "shared/models/1").is_dir()
    assert not (tmp_path / "shared/models/2").exists()
