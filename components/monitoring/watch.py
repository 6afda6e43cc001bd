"""The two commands: make a reference, and check images against one; MLflow runs of the checks."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from components import mlflow_runs
from components.monitoring import drift, images, report
from components.monitoring.drift import ALARMING, Reference, check
from components.monitoring.images import Naming
from components.monitoring.measure import Measured, Sampling, measure
from components.monitoring.statistics import from_rows
from components.monitoring.two_sample import Limits

MakePipeline = Callable[[], beam.Pipeline]


def make_reference(
    paths: Sequence[str],
    output: Path,
    model: tuple[str, dict[str, Any]],
    naming: Naming,
    sampling: Sampling,
    staging: str,
    make_pipeline: MakePipeline | None = None,
) -> Reference:
    """Measures up to `sampling.images` images of each imager and writes the reference into the folder `output`.

    `model`: where it is, and what `model_facts` says of it. `staging`: a folder or URI that the workers reach.
    """
    found = images.find_images(paths)
    sources = images.institutions(paths, found)
    measured = measure(found, naming, sources, model[0], staging, sampling, make_pipeline)
    reference = drift.make_reference(measured, model[1])
    drift.write_reference(reference, output)
    return reference


def check_images(
    paths: Sequence[str],
    output: Path,
    reference: Reference,
    model: str,
    naming: Naming,
    limits: Limits,
    staging: str,
    days: float | None = None,
    seed: int = 0,
    make_pipeline: MakePipeline | None = None,
) -> dict[str, Any]:
    """Checks images against `reference`; writes `drift.json` and `drift.html` into `output`, returns the former.

    `days`: only images of files that changed so many days ago at most; that there are none is no error.
    """
    found = images.find_images(paths, days)
    sources = images.institutions(paths, found)
    sampling = Sampling(images=limits.most, seed=seed)
    nothing = Measured(from_rows([]), {}, [])
    measured = measure(found, naming, sources, model, staging, sampling, make_pipeline) if found else nothing
    table = reference.project(measured.table)
    failed = collections.Counter(imager for imager, _, _ in measured.failed)
    verdicts = check(reference, table, measured.seen, limits, seed, failed)
    outcome = report.as_json(verdicts, measured, reference, limits)
    report.write(output, outcome, verdicts, table, reference)
    return outcome


def model_facts(directory: Path) -> dict[str, Any]:
    """Returns `name`, `fingerprint` and `classes` of the classifier in `directory`; raises InputError without one."""
    from marco_model.model_directory import PUBLISHED_NAME, class_names, model_fingerprint, read_metadata

    metadata = read_metadata(directory)
    return {
        "name": metadata.get("name", directory.name) if metadata else PUBLISHED_NAME,
        "fingerprint": model_fingerprint(directory),
        "classes": class_names(directory),
    }


EXPERIMENT = "marco-monitoring"


def log_to_mlflow(tracking_uri: str, outcome: dict[str, Any], files: list[Path]) -> str:
    """Logs a check as one run of the experiment `marco-monitoring`; returns the run's id.

    Metrics: `alarms`, and for each imager `IMAGER/images` and `IMAGER/TEST`, the effects. Raises InputError where
    MLflow does not answer.
    """
    client = mlflow_runs.connect(tracking_uri)
    with mlflow_runs.reaching(tracking_uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        place = mlflow_runs.artifact_location(tracking_uri)
        number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, place)
        run = client.create_run(number, run_name=f"drift {outcome['checked']}").info.run_id
        for name, value in metrics(outcome).items():
            client.log_metric(run, name, value)
        client.set_tag(run, "marco.alarm", str(outcome["alarm"]).lower())
        client.set_tag(run, "marco.model", outcome["model"]["name"])
        for file in files:
            client.log_artifact(run, str(file))
        client.set_terminated(run)
    return run


def metrics(outcome: dict[str, Any]) -> dict[str, float]:
    """Returns the figures of a check by names that MLflow allows."""
    figures: dict[str, float] = {
        "alarms": sum(entry["status"] in ALARMING for entry in outcome["imagers"]),
        "images": outcome["images"],
        "unreadable": len(outcome["unreadable"]),
    }
    for entry in outcome["imagers"]:
        imager = re.sub(r"[^\w\-. ]+", "-", entry["imager"])
        figures[f"{imager}/images"] = entry["images"]
        figures.update({f"{imager}/{test['name']}": test["effect"] for test in entry["tests"]})
    return figures
