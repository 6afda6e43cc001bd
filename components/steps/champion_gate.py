"""The gate: compares a blessed candidate with the champion on the same examples, and decides which of them serves."""

import json

import apache_beam as beam
from absl import logging
from tfx.components.util import model_utils
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation
from tfx.utils import io_utils, path_utils

from components import artifacts, evaluations, gate, mlflow_runs, prediction_table, predictions
from components import champion as champions
from components.published_models import on_this_machine
from components.settings import Rules
from components.steps.entrypoint import unstaged
from marco_model.errors import InputError, expected_errors
from marco_model.model_directory import model_fingerprint
from marco_model.store import is_object

FIRST = "there is no champion to beat: the thresholds alone decide"
SERVING = "it is the champion itself, which is serving already"
_LOCAL_RUNNERS = {"DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner", "FnApiRunner", "PrismRunner"}
_TAG_LENGTH = 5000  # Characters; MLflow refuses more than 8,000.


@component(use_beam=True)
def ChampionGate(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    evaluation: InputArtifact[ModelEvaluation],
    model_blessing: InputArtifact[ModelBlessing],
    blessing: OutputArtifact[ModelBlessing],
    decision: OutputArtifact[artifacts.Decision],
    rules: Parameter[str],
    classes: Parameter[str],
    champion: Parameter[str] = "",
    registered_model: Parameter[str] = "",
    split: Parameter[str] = "eval",
    batch_size: Parameter[int] = 64,
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `decision.json` into `decision`, the final `blessing`, and tags of the MLflow run.

    A candidate that the Evaluator did not bless (`model_blessing`) is not compared; without a champion the Evaluator's
    verdict stands. `champion` is what `components.champion.write_champion` returns, empty for none. If by now MLflow's
    registry has another champion of `registered_model`, and it is not the candidate itself, that one is to be beaten;
    an empty name leaves the registry out. JSON: `rules` (`components.settings.Rules`) and `classes`, names in order.

    Raises:
        InputError: the candidate's predictions are not of these examples, MLflow cannot be reached, or its champion
            was never published.
        ClusterError: the service of the champion's bucket fails.
    """
    run = mlflow_runs.run_of_model(model.uri)
    with on_this_machine(path_utils.serving_model_dir(model.uri)) as folder:
        candidate = model_fingerprint(folder)
    if run and registered_model:
        champion = champions.current_champion(run.tracking_uri, registered_model, candidate) or champion
    to_beat = champions.parse_champion(champion)
    if not model_utils.is_model_blessed(model_blessing):
        verdict = gate.Verdict(False, list(evaluations.slice_metrics(evaluation.uri)["failures"]), [])
    elif to_beat is None:
        verdict = gate.Verdict(True, [FIRST], [])
    else:
        files = artifacts.split_files(examples, split)
        names = json.loads(classes)
        try:
            columns = predict_champion(
                to_beat["model"], candidate, names, files, decision.uri, batch_size, beam_pipeline
            )
        except InputError as error:
            name = champions.describe_champion(to_beat)
            reason = f"it could not be compared with the champion, {name}: {error}; {champions.REMEDY}"
            verdict = gate.Verdict(False, [reason], [])
        else:
            verdict = gate.Verdict(True, [SERVING], [])
            if columns is not None:
                own, other = (prediction_table.read(artifact.uri) for artifact in (evaluation, decision))
                verdict = gate.compare(own, other, columns, names, Rules.model_validate_json(rules))
    io_utils.write_string_file(f"{decision.uri}/{gate.DECISION_FILE}", gate.decision_content(verdict, to_beat))
    artifacts.bless(blessing, model, verdict.blessed)
    log = logging.info if verdict.blessed else logging.warning
    log("%s: %s.", "Blessed" if verdict.blessed else "Not blessed", "; ".join(verdict.reasons))
    if run:
        tags = decision_tags(verdict, to_beat)
        run.set_tags({mlflow_runs.FINGERPRINT: candidate, mlflow_runs.EVALUATION: unstaged(evaluation.uri), **tags})


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
    with on_this_machine(champion) as folder:
        if model_fingerprint(folder) == candidate:
            return None
        columns = champions.champion_columns(folder, classes)
        # Workers elsewhere can't see this machine's copy.
        distant = is_object(champion) and type(beam_pipeline.runner).__name__ not in _LOCAL_RUNNERS
        with expected_errors(), beam_pipeline as pipeline:
            predictions.write_table(pipeline, files, champion if distant else str(folder), batch_size, output)
    return columns


def decision_tags(verdict: gate.Verdict, to_beat: dict[str, str] | None) -> dict[str, str]:
    """Returns the tags of the MLflow run that record the decision."""
    reasons = "; ".join(verdict.reasons)[:_TAG_LENGTH]
    return {
        "blessed": str(verdict.blessed).lower(),
        "failures": "" if verdict.blessed else reasons,
        "gate.reasons": reasons,
        "gate.champion": champions.describe_champion(to_beat) if to_beat else "",
    }
