"""The steps that leave one source out, beside a Trainer and an Evaluator for each: Sources before, LeaveOneOut after.

Both are in the graph only if a configuration has `leave_out`. An input of a step on Kubeflow Pipelines is one artifact,
so that each LeaveOneOut takes the one before it, and adds a value to its table; that of the last is whole.
"""

import json
import tempfile
from pathlib import Path

import apache_beam as beam
import pandas as pd
import tensorflow as tf
from tfx.dsl.component.experimental import annotations, decorators
from tfx.types import standard_artifacts

from components import artifacts, evaluations, leave_out, mlflow_runs
from components.report import page
from marco_data import shards
from marco_model import errors, preprocessing, store


@decorators.component(use_beam=True)
def Sources(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    sources: annotations.OutputArtifact[artifacts.Sources],
    attribute: annotations.Parameter[str],
    values: annotations.Parameter[str],
    beam_pipeline: annotations.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes the `attribute` of every image that a training may see, ExampleGen's, each of which is read once.

    `values`: JSON of those that are to be left out. Raises `InputError` as `components.leave_out.check_sources` does.
    """
    roles = {shards.TRAIN: shards.TRAIN, shards.VALIDATION: artifacts.validation_split(examples)}
    pairs = [(role, file) for role, split in roles.items() for file in artifacts.split_files(examples, split)]
    chosen, path = json.loads(values), f"{sources.uri}/{leave_out.SOURCES_FILE}"
    with errors.expected_errors(), beam_pipeline as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(pairs)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.Map(_read_sources, attribute)
            | "Gather" >> beam.combiners.ToList()
            | "Write" >> beam.Map(_write_sources, attribute, chosen, path)
        )


def _read_sources(pair: tuple[str, str], attribute: str) -> tuple[str, str, list[str]]:
    """Returns a role and a TFRecord file with the source of each record."""
    batches = preprocessing.parsed_records([pair[1]], {attribute: tf.io.FixedLenFeature([], tf.string)})
    return (*pair, [name.decode("utf-8", "replace") for batch in batches for name in batch[attribute].tolist()])


def _write_sources(parts: list[tuple[str, str, list[str]]], attribute: str, values: list[str], path: str) -> None:
    names: dict[str, list[str]] = {role: [] for role in leave_out.ROLES}
    for role, _, found in sorted(parts):
        names[role] += found
    leave_out.check_sources(names, attribute, values)
    leave_out.write_sources(path, names)


@decorators.component
def LeaveOneOut(
    model: annotations.InputArtifact[standard_artifacts.Model],
    evaluation: annotations.InputArtifact[standard_artifacts.ModelEvaluation],
    away_model: annotations.InputArtifact[standard_artifacts.Model],
    away_evaluation: annotations.InputArtifact[standard_artifacts.ModelEvaluation],
    report: annotations.OutputArtifact[artifacts.LeaveOneOut],
    attribute: annotations.Parameter[str],
    values: annotations.Parameter[str],
    target: annotations.Parameter[str],
    smallest: annotations.Parameter[int],
    earlier: annotations.InputArtifact[artifacts.LeaveOneOut] = None,
) -> None:
    """Compares `model`, which saw all, with `away_model`, which did not see the last of `values`, on that one's images.

    `values`: JSON; the others of them are in the table of `earlier`. `target`: the class that must not be missed, empty
    for none. `smallest`: images below which nothing is said of a difference. In MLflow the runs of the models that have
    not seen a source are nested below the run of `model`, which gets the table.

    Raises `InputError` if the evaluations are not of the same images, or MLflow cannot be reached.
    """
    names, home = json.loads(values), evaluations.read_predictions(evaluation.uri)
    own = evaluations.read_predictions(away_evaluation.uri)
    parts = [evaluations.read_predictions(earlier.uri)] if earlier else []
    away = pd.concat([*parts, own[own[attribute] == names[-1]]], ignore_index=True)
    classes = evaluations.slice_metrics(evaluation.uri)["classes"]
    content = leave_out.compare(home, away, attribute, names, classes, target or None, smallest)
    evaluations.write_predictions(away, f"{report.uri}/{evaluations.PREDICTIONS_FILE}")
    run, away_run = (mlflow_runs.run_of_model(artifact.uri) for artifact in (model, away_model))
    with tempfile.TemporaryDirectory() as scratch:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        Path(scratch, leave_out.JSON_FILE).write_text(text, encoding="utf-8")
        Path(scratch, leave_out.HTML_FILE).write_text(page.leave_out_page(json.loads(text)), encoding="utf-8")
        if run:
            run.log_slices(leave_out.flat_metrics(content))
            run.log_folder(scratch, "leave_out")
        for file in Path(scratch).iterdir():
            store.write_bytes(f"{report.uri}/{file.name}", file.read_bytes())
    if run and away_run:
        away_run.set_tags({mlflow_runs.PARENT: run.run_id})
