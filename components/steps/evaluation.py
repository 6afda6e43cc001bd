"""The steps that judge a trained model: Evaluator, ChampionGate and Report.

The Evaluator judges the model by one split of ExampleGen's output, images as they came; Beam's workers run it once over
them, and its scores become a table of predictions. The ChampionGate compares a blessed candidate with the
champion on the same examples, and decides which of them serves. The Report is one page that shows how the model did,
from the Evaluator's table and the gate's decision.
"""

import datetime
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import tensorflow as tf
from absl import logging
from tfx.dsl.component.experimental import annotations, decorators
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import artifacts, champion as champions, evaluations, gate, mlflow_runs, published_models, settings
from components.report import page
from components.steps.entrypoint import unstaged
from marco_data import contract, shards
from marco_model import errors, example_files, model_directory, preprocessing, saved_model as saved_models, store

FIRST = "there is no champion to beat, and gate.evidence is false: the thresholds alone decide"
NO_GAIN = (
    "training gained nothing: at no evaluation in {steps} steps were the weights better than those it began with, "
    "which label {accuracy:.1%} of the validation images right, so the model is unchanged; more validation images may "
    "show a gain (data.validation_share, or --validation-share of marco data import)"
)
NOT_TRAINED = (
    "nothing was trained: the weights that training begins with label {accuracy:.1%} of the validation images right, "
    "and a gain of one image may be chance; validate on more images (data.validation_share, or --validation-share of "
    "marco data import), or label more that these weights get wrong"
)
ENOUGH = f"{gate.MORE_IMAGES}; with gate.champion=none there is no model to beat"
SERVING = "it is the champion itself, which is serving already"
_LOCAL_RUNNERS = {"DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner", "FnApiRunner", "PrismRunner"}
_TAG_LENGTH = 5000  # Characters; MLflow refuses more than 8,000.
_COLUMNS = {
    contract.IMAGE_ID: "image_id",
    contract.FILENAME: "filename",
    contract.LABEL: "label",
    contract.INSTITUTION: "institution",
    contract.IMAGER: "imager",
    contract.PLATE: "plate",
}
"""Features of a record, and the columns of the table of predictions that they become."""


@decorators.component(use_beam=True)
def Evaluator(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    model: annotations.InputArtifact[standard_artifacts.Model],
    evaluation: annotations.OutputArtifact[standard_artifacts.ModelEvaluation],
    blessing: annotations.OutputArtifact[standard_artifacts.ModelBlessing],
    thresholds: annotations.Parameter[str],
    classes: annotations.Parameter[str],
    split: annotations.Parameter[str] = "eval",
    batch_size: annotations.Parameter[int] = 64,
    average: annotations.Parameter[int] = 1,
    beam_pipeline: annotations.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `metrics.json` and `predictions.parquet` into `evaluation`, the blessing, and the MLflow run.

    What is judged is what is served: the SavedModel of `model`, by its signature `serving_examples`. `thresholds`: JSON
    of metric (`components.evaluations.metric_names`) → smallest good value over all examples; without any, nothing is
    blessed. `classes`: JSON of names in index order. `batch_size`: images in one call. `average`: above 1 the model
    judges again, by the mean over so many views of each image; what that changes is `averaged` of `metrics.json`.

    Raises:
        InputError: the split has no examples, a score is not finite, or MLflow cannot be reached.
    """
    files, saved_model = artifacts.split_files(examples, split), path_utils.serving_model_path(model.uri)
    averaged = f"{evaluation.uri}/averaged"
    with errors.expected_errors(), beam_pipeline as pipeline:
        write_predictions(pipeline, files, saved_model, batch_size, evaluation.uri)
        if average > 1:
            write_predictions(pipeline, files, saved_model, batch_size, averaged, average)
    table = evaluations.read_predictions(evaluation.uri)
    if table.empty:
        raise errors.InputError(f"split {split!r} has no examples to judge the model by; check the split of the data")
    names, bounds = json.loads(classes), json.loads(thresholds)
    overall, slices = evaluations.evaluate(table, names)
    missed = evaluations.missed_thresholds(overall, bounds)
    if not bounds:
        missed = ["no threshold is set, so nothing can be blessed"]
    with published_models.on_this_machine(path_utils.serving_model_dir(model.uri)) as folder:
        fingerprint = model_directory.model_fingerprint(folder)
    content = {
        "model": fingerprint,
        "classes": names,
        "blessed": not missed,
        "thresholds": bounds,
        "failures": missed,
        "slices": slices,
    }
    if average > 1:
        other = evaluations.read_predictions(averaged)
        content["averaged"] = evaluations.compare_averaged(table, other, names, average)
    text = json.dumps(content, indent=1) + "\n"
    io_utils.write_string_file(f"{evaluation.uri}/{evaluations.METRICS_FILE}", text)
    artifacts.bless(blessing, model, not missed)
    if missed:
        logging.warning("The model is not blessed: %s.", "; ".join(missed))
    if run := mlflow_runs.run_of_model(model.uri):
        log_evaluation(run, content)
    else:
        logging.info("The model was trained without MLflow; the evaluation is in its artifact alone.")


class Predict(beam.DoFn):
    """From a TFRecord file of ExampleGen's output to its rows of the table, through the signature `serving_examples`.

    TensorFlow reads and unpacks ahead while the model works; at most three batches of images are in memory.
    """

    def __init__(self, model_path: str, batch_size: int, average: int = 1):
        self._model_path = model_path
        self._batch_size = batch_size
        self._average = average

    def setup(self) -> None:
        """Loads the model once per worker."""
        spec = {name: tf.io.FixedLenFeature([], tf.string) for name in _COLUMNS}
        spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in (contract.IMAGE_ID, contract.LABEL)}
        spec[contract.PLATE] = tf.io.FixedLenFeature([], tf.string, default_value="")
        self._model = saved_models.load(self._model_path)
        self._score = self._mean_scores if self._average > 1 else self._model.signatures["serving_examples"]
        self._parse = tf.function(
            lambda serialized: tf.io.parse_example(serialized, spec), input_signature=[tf.TensorSpec([None], tf.string)]
        )

    def _mean_scores(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the signature does for the mean over the views of each image."""
        encoded = {contract.ENCODED: tf.io.FixedLenFeature([], tf.string)}
        images = self._model.images(tf.io.parse_example(examples, encoded)[contract.ENCODED])
        views = preprocessing.views(images, self._average)
        return {"scores": tf.add_n([tf.nn.softmax(self._model.logits(view)) for view in views]) / self._average}

    def process(self, file: str) -> Iterator[pd.DataFrame]:
        """Yields the rows of the records of `file`, if it has any.

        Raises `InputError` if `file` is damaged, or a score is not finite: the argmax of such scores would pass for a
        class.
        """
        try:
            yield from self._table(file)
        except tf.errors.DataLossError:
            shards.refuse_damaged([file])
            raise

    def _table(self, file: str) -> Iterator[pd.DataFrame]:
        records = tf.data.TFRecordDataset(file)
        shard = file.rpartition("/")[2]
        columns: dict[str, list[Any]] = {column: [] for column in ("scores", *_COLUMNS.values())}
        for serialized in preprocessing.without_autotuning(records.batch(self._batch_size).prefetch(1)):
            scores = self._score(examples=serialized)["scores"].numpy()
            if not np.isfinite(scores).all():
                within = int((~np.isfinite(scores)).any(axis=1).argmax())
                raise errors.InputError(
                    f"the model at {self._model_path} gives record {len(columns['scores']) + within} of {shard} scores "
                    f"that are not finite ({', '.join(str(score) for score in scores[within])}); train it again"
                )
            columns["scores"] += list(scores)
            for name, values in self._parse(serialized).items():
                cells = values.numpy().tolist()
                columns[_COLUMNS[name]] += [
                    cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in cells
                ]
        if columns["scores"]:
            yield pd.DataFrame({"shard": shard, "index": range(len(columns["scores"])), **columns})


def write_predictions(
    pipeline: beam.Pipeline, files: Sequence[str], model_path: str, batch_size: int, output: str, average: int = 1
) -> None:
    """Adds to `pipeline` the scoring of every record of `files` by the SavedModel at `model_path`, as one table.

    Workers share the files among them; the one that writes holds the whole table once. `output`: a folder or a URI.
    `average`: scores are the mean over so many views of an image (`marco_model.preprocessing.views`).
    """
    path = f"{output}/{evaluations.PREDICTIONS_FILE}"
    label = f" over {average} views" if average > 1 else ""
    _ = (
        pipeline
        | f"Files{label}" >> beam.Create(list(files))
        | f"Spread{label}" >> beam.Reshuffle()
        | f"Predict{label}" >> beam.ParDo(Predict(model_path, batch_size, average))
        | f"Gather{label}" >> beam.combiners.ToList()
        | f"Write{label}" >> beam.Map(lambda parts: evaluations.write_predictions(_together(parts), path))
    )


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(evaluations.COLUMNS))


def log_evaluation(run: mlflow_runs.Run, evaluation: dict) -> None:
    """Writes the content of `metrics.json` to the run that trained the model: slices, verdict, confusion matrix."""
    run.log_slices(evaluations.flat_metrics(evaluation))
    run.set_tags({"blessed": str(evaluation["blessed"]).lower(), "failures": "; ".join(evaluation["failures"])})
    overall = evaluation["slices"][evaluations.OVERALL][evaluations.ALL]
    title = f"All {overall['count']:,} examples, accuracy {overall['accuracy']:.1%}"
    figure = mlflow_runs.confusion_matrix_figure(overall["confusion_matrix"], evaluation["classes"], title)
    run.log_figure(figure, "confusion_matrix.png")


@decorators.component(use_beam=True)
def ChampionGate(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    model: annotations.InputArtifact[standard_artifacts.Model],
    evaluation: annotations.InputArtifact[standard_artifacts.ModelEvaluation],
    model_blessing: annotations.InputArtifact[standard_artifacts.ModelBlessing],
    blessing: annotations.OutputArtifact[standard_artifacts.ModelBlessing],
    decision: annotations.OutputArtifact[artifacts.Decision],
    rules: annotations.Parameter[str],
    classes: annotations.Parameter[str],
    champion: annotations.Parameter[str] = "",
    registered_model: annotations.Parameter[str] = "",
    initial: annotations.Parameter[str] = "",
    split: annotations.Parameter[str] = "eval",
    batch_size: annotations.Parameter[int] = 64,
    beam_pipeline: annotations.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `decision.json` into `decision`, the final `blessing`, and tags of the MLflow run.

    A candidate that the Evaluator did not bless (`model_blessing`) is not compared. One that has the weights its
    training began with (`best_step` 0) is refused. `champion` is what `components.champion.write_champion` returns,
    empty for none. If by now MLflow's registry has another champion of `registered_model`, and it is not the candidate
    itself, that one is to be beaten; an empty name leaves the registry out. Without a champion, the model that training
    began with (`initial`, as `network.initial`) is to be beaten if it has the same classes; otherwise the candidate
    must be better than always answering the commonest class (`components.gate.decide_alone`), unless the rules ask
    for no evidence. JSON: `rules` (`components.settings.Rules`) and `classes`, names in order.

    Raises:
        InputError: the candidate's predictions are not of these examples, MLflow cannot be reached, or its champion
            was never published.
        ClusterError: the service of the champion's bucket fails.
    """
    run = mlflow_runs.run_of_model(model.uri)
    with published_models.on_this_machine(path_utils.serving_model_dir(model.uri)) as folder:
        candidate = model_directory.model_fingerprint(folder)
    if run and registered_model:
        champion = champions.current_champion(run.tracking_uri, registered_model, candidate) or champion
    names, chosen = json.loads(classes), settings.Rules.model_validate_json(rules)
    to_beat = champions.parse_champion(champion) or champions.starting_champion(initial, names)
    if not artifacts.is_blessed(model_blessing):
        verdict = gate.Verdict(False, list(evaluations.slice_metrics(evaluation.uri)["failures"]), [])
    elif (training := mlflow_runs.training_of_model(model.uri)).get("best_step") == 0:
        verdict = gate.Verdict(False, [(NO_GAIN if training["steps"] else NOT_TRAINED).format(**training)], [])
    elif to_beat is None and not chosen.evidence:
        verdict = gate.Verdict(True, [FIRST], [])
    elif to_beat is None:
        verdict = gate.decide_alone(evaluations.read_predictions(evaluation.uri), names, chosen)
    else:
        files = artifacts.split_files(examples, split)
        try:
            tracking = run.tracking_uri if run else ""
            with champions.saved_model(to_beat, f"{decision.uri}/champion", tracking) as place:
                columns = predict_champion(place, candidate, names, files, decision.uri, batch_size, beam_pipeline)
        except errors.InputError as error:
            name = champions.describe_champion(to_beat)
            reason = f"it could not be compared with the champion, {name}: {error}; {champions.REMEDY}"
            verdict = gate.Verdict(False, [reason], [])
        else:
            verdict = gate.Verdict(True, [SERVING], [])
            if columns is not None:
                own, other = (evaluations.read_predictions(artifact.uri) for artifact in (evaluation, decision))
                verdict = gate.compare(own, other, columns, names, chosen, champions.rival(to_beat))
                if to_beat["version"] == champions.START and not verdict.blessed:
                    verdict.reasons.append(ENOUGH)
    io_utils.write_string_file(f"{decision.uri}/{gate.DECISION_FILE}", gate.decision_content(verdict, to_beat))
    artifacts.bless(blessing, model, verdict.blessed)
    log = logging.info if verdict.blessed else logging.warning
    log("%s: %s.", "Blessed" if verdict.blessed else "Not blessed", "; ".join(verdict.reasons))
    if run:
        reasons = "; ".join(verdict.reasons)[:_TAG_LENGTH]
        run.set_tags(
            {
                mlflow_runs.FINGERPRINT: candidate,
                mlflow_runs.EVALUATION: unstaged(evaluation.uri),
                "blessed": str(verdict.blessed).lower(),
                "failures": "" if verdict.blessed else reasons,
                "gate.reasons": reasons,
                "gate.champion": champions.describe_champion(to_beat) if to_beat else "",
            }
        )


def predict_champion(
    champion: str,
    candidate: str,
    classes: list[str],
    files: list[str],
    output: str,
    batch_size: int,
    beam_pipeline: beam.Pipeline,
) -> list[int] | None:
    """Lets the model at the folder or URI `champion` score the records of `files` into a table in `output`.

    Returns where among its scores each of `classes` is; None, and no table, if it has the fingerprint `candidate`.
    Raises `InputError` if it cannot score them.
    """
    with published_models.on_this_machine(champion) as folder:
        if model_directory.model_fingerprint(folder) == candidate:
            return None
        columns = champions.champion_columns(folder, classes)
        # Workers elsewhere can't see this machine's copy.
        distant = store.is_object(champion) and type(beam_pipeline.runner).__name__ not in _LOCAL_RUNNERS
        with errors.expected_errors(), beam_pipeline as pipeline:
            write_predictions(pipeline, files, champion if distant else str(folder), batch_size, output)
    return columns


@decorators.component
def Report(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    model: annotations.InputArtifact[standard_artifacts.Model],
    evaluation: annotations.InputArtifact[standard_artifacts.ModelEvaluation],
    report: annotations.OutputArtifact[artifacts.Report],
    options: annotations.Parameter[str],
    data_fingerprint: annotations.Parameter[str] = "",
    synthetic: annotations.Parameter[int] = 0,
    split: annotations.Parameter[str] = "eval",
    decision: annotations.InputArtifact[artifacts.Decision] = None,
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
    about: dict[str, Any] = {"data_fingerprint": data_fingerprint, "synthetic": bool(synthetic), "split": split}
    names = artifact_utils.decode_split_names(examples.split_names)
    about["splits"] = {name: len(example_files.read_index(artifacts.split_files(examples, name))) for name in names}
    with tempfile.TemporaryDirectory() as scratch, published_models.on_this_machine(trained) as saved_model:
        folder = Path(scratch) / "report"
        page.write_report(
            folder,
            evaluation_uri=evaluation.uri,
            examples_uri=examples.uri,
            split=split,
            saved_model=saved_model,
            options=settings.ReportOptions.model_validate_json(options),
            decision=gate.read_decision(decision.uri) if decision else None,
            about={**provenance(run), **about, "validation": artifacts.validation_split(examples)},
            training=mlflow_runs.training_of_model(model.uri),
        )
        if run:
            run.log_folder(str(folder), "report")
        io_utils.copy_dir(str(folder), report.uri)
    logging.info("The report is %s/%s.", report.uri, page.HTML_FILE)


def provenance(run: mlflow_runs.Run | None) -> dict[str, object]:
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
