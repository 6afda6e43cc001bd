"""A check as an MLflow run: the effects by imager, and the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from components.mlflow_tracking import connection
from components.monitoring.drift import ALARMING

EXPERIMENT = "marco-monitoring"


def log(tracking_uri: str, outcome: dict[str, Any], files: list[Path]) -> str:
    """Logs a check as one run of the experiment `marco-monitoring`; returns the run's id.

    Metrics: `alarms`, and for each imager `IMAGER/images` and `IMAGER/TEST`, the effects. Raises InputError where
    MLflow does not answer.
    """
    client = connection.client(tracking_uri)
    with connection.reaching(tracking_uri):
        experiment = client.get_experiment_by_name(EXPERIMENT)
        place = connection.artifact_location(tracking_uri)
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
        "alarms": sum(one["status"] in ALARMING for one in outcome["imagers"]),
        "images": outcome["images"],
        "unreadable": len(outcome["unreadable"]),
    }
    for one in outcome["imagers"]:
        imager = re.sub(r"[^\w\-. ]+", "-", one["imager"])
        figures[f"{imager}/images"] = one["images"]
        figures.update({f"{imager}/{test['name']}": test["effect"] for test in one["tests"]})
    return figures
