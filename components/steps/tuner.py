"""The Tuner: searches for better values of the recipe and the network before the training."""

import json

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, HyperParameters, TransformGraph, TunerResults
from tfx.utils import io_utils

from components import artifacts
from components.trainer import job as jobs

RESULTS_FILE = "tuner_results.json"


@component
def Tuner(
    examples: InputArtifact[Examples],
    transform_graph: InputArtifact[TransformGraph],
    best_hyperparameters: OutputArtifact[HyperParameters],
    tuner_results: OutputArtifact[TunerResults],
    training: Parameter[str],
    source: Parameter[str],
    fingerprint: Parameter[str],
    initial: Parameter[str] = "",
    steps: Parameter[str] = "",
) -> None:
    """Searches as the job's `tuning` says; takes what the Trainer does.

    Writes what TFX's own Tuner does: KerasTuner's HyperParameters with the best values as JSON, and the values and the
    score of each trial, the best first.

    Raises:
        InputError: as the Trainer does, or trials would need several machines.
        Interrupted: SIGTERM or SIGINT came; the next attempt continues the search.
    """
    job = jobs.TrainingJob.model_validate_json(training).bind(
        jobs.TrainingParameters(source, fingerprint, initial, steps),
        transform_graph=transform_graph.uri,
        train_files=artifacts.split_files(examples, "train"),
        eval_files=artifacts.split_files(examples, "eval"),
    )
    from components import search

    best, trials = search.run_search(job)
    io_utils.write_string_file(f"{best_hyperparameters.uri}/{jobs.BEST_FILE}", json.dumps(best))
    io_utils.write_string_file(f"{tuner_results.uri}/{RESULTS_FILE}", json.dumps(trials))
