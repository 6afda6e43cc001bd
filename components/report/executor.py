"""Writes the report of a model that was judged, and keeps it in the MLflow run of its training."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

from absl import logging
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.gate import decision
from components.mlflow_tracking import provenance, tracking
from components.pusher.storage import on_this_machine
from components.report.names import HTML_FILE
from components.report.options import ReportOptions
from components.report.write import write_report


class Executor(base_executor.BaseExecutor):
    """Written on this machine first, then copied to where artifacts lie, as a whole."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the report.

        Raises:
            InputError: the evaluation has no predictions or is of other examples, or MLflow cannot be reached.
            ClusterError: the service of a bucket fails.
        """
        model = artifact_utils.get_single_uri(input_dict["model"])
        output = artifact_utils.get_single_uri(output_dict["report"])
        decided = input_dict.get("decision")
        run = tracking.run_of_model(model)
        trained = path_utils.serving_model_dir(model)
        with tempfile.TemporaryDirectory() as scratch, on_this_machine(trained) as saved_model:
            folder = Path(scratch) / "report"
            write_report(
                folder,
                evaluation_uri=artifact_utils.get_single_uri(input_dict["evaluation"]),
                examples_uri=artifact_utils.get_single_uri(input_dict["examples"]),
                split=exec_properties["split"],
                saved_model=saved_model,
                options=ReportOptions.from_json(exec_properties["options"]),
                decision=decision.read(artifact_utils.get_single_uri(decided)) if decided else None,
                about=_about(run, exec_properties),
            )
            if run:
                run.log_folder(str(folder), "report")
            io_utils.copy_dir(str(folder), output)
        logging.info("The report is %s/%s.", output, HTML_FILE)


def _about(run: tracking.Run | None, properties: dict[str, Any]) -> dict[str, Any]:
    """Where the run comes from; the commit is that of the code at work, else what MLflow knows of the training's."""
    tags = run.tags() if run else {}
    commit, dirty = provenance.commit() or (tags.get("mlflow.source.git.commit"), tags.get("git.dirty") == "true")
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "data_fingerprint": properties["data_fingerprint"],
        "synthetic": bool(properties["synthetic"]),
        "mlflow_run_id": run.run_id if run else None,
        "commit": commit,
        "dirty": dirty,
        "versions": [
            {"name": name, "version": version} for name, version in sorted(provenance.runtime_versions().items())
        ],
    }
