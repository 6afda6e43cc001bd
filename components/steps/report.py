"""The report: one page that shows how the model did, from the Evaluator's table and the gate's decision."""

import datetime
import tempfile
from pathlib import Path
from typing import Any

from absl import logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelEvaluation
from tfx.utils import io_utils, path_utils

from components import artifacts, gate, mlflow_runs, published_models
from components.report import page
from components.settings import ReportOptions


@component
def Report(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    evaluation: InputArtifact[ModelEvaluation],
    report: OutputArtifact[artifacts.Report],
    options: Parameter[str],
    data_fingerprint: Parameter[str] = "",
    synthetic: Parameter[int] = 0,
    split: Parameter[str] = "eval",
    decision: InputArtifact[artifacts.Decision] = None,
) -> None:
    """Writes `report` on this machine first, then copies it, as a whole, to where artifacts lie; MLflow gets it too.

    `options`: JSON of `components.settings.ReportOptions`. `data_fingerprint` is shown; `synthetic` is 1 if the images
    are drawn.

    Raises:
        InputError: the evaluation has no predictions or is of other examples, or MLflow cannot be reached.
        ClusterError: the service of a bucket fails.
    """
    run = mlflow_runs.run_of_model(model.uri)
    trained = path_utils.serving_model_dir(model.uri)
    with tempfile.TemporaryDirectory() as scratch, published_models.on_this_machine(trained) as saved_model:
        folder = Path(scratch) / "report"
        page.write_report(
            folder,
            evaluation_uri=evaluation.uri,
            examples_uri=examples.uri,
            split=split,
            saved_model=saved_model,
            options=ReportOptions.model_validate_json(options),
            decision=gate.read_decision(decision.uri) if decision else None,
            about={**provenance(run), "data_fingerprint": data_fingerprint, "synthetic": bool(synthetic)},
        )
        if run:
            run.log_folder(str(folder), "report")
        io_utils.copy_dir(str(folder), report.uri)
    logging.info("The report is %s/%s.", report.uri, page.HTML_FILE)


def provenance(run: mlflow_runs.Run | None) -> dict[str, Any]:
    """Returns `created`, `mlflow_run_id`, `commit`, `dirty` and `versions` of libraries for the report.

    The commit is that of the code that runs; outside a checkout it is what MLflow knows of the training's.
    """
    tags = run.tags() if run else {}
    commit, dirty = mlflow_runs.commit() or (tags.get("mlflow.source.git.commit"), tags.get("git.dirty") == "true")
    versions = sorted(mlflow_runs.runtime_versions().items())
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "mlflow_run_id": run.run_id if run else None,
        "commit": commit,
        "dirty": dirty,
        "versions": [{"name": name, "version": version} for name, version in versions],
    }
