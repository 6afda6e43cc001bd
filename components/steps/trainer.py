"""The Trainer, and the Tuner that may run before it: both take the job, and what a schedule changes, as parameters.

They are functions of our own in place of TFX's Trainer and Tuner. The training itself is in `components.trainer`, the
search in `components.search`.
"""

import json
from typing import Any

from tfx.dsl.component.experimental import annotations, decorators
from tfx.types import Artifact, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import artifacts, leave_out
from components.trainer.job import TrainingJob, TrainingParameters
from marco_data import shards

# The names that TFX's own Tuner gives these files.
BEST_FILE, RESULTS_FILE = "best_hyperparameters.txt", "tuner_results.json"


@decorators.component
def Tuner(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    transform_graph: annotations.InputArtifact[standard_artifacts.TransformGraph],
    best_hyperparameters: annotations.OutputArtifact[standard_artifacts.HyperParameters],
    tuner_results: annotations.OutputArtifact[standard_artifacts.TunerResults],
    training: annotations.Parameter[str],
    source: annotations.Parameter[str],
    fingerprint: annotations.Parameter[str],
    initial: annotations.Parameter[str] = "",
    steps: annotations.Parameter[str] = "",
) -> None:
    """Searches as the job's `tuning` says; takes what the Trainer does.

    Writes what TFX's own Tuner does: KerasTuner's HyperParameters with the best values as JSON, and the values and the
    score of each trial, the best first.

    Raises:
        InputError: as the Trainer does, or trials would need several machines.
        Interrupted: SIGTERM or SIGINT came; the next attempt continues the search.
    """
    from components import search

    parameters = TrainingParameters(source, fingerprint, initial, steps)
    best, trials = search.run_search(_bind(training, parameters, examples, transform_graph))
    io_utils.write_string_file(f"{best_hyperparameters.uri}/{BEST_FILE}", json.dumps(best))
    io_utils.write_string_file(f"{tuner_results.uri}/{RESULTS_FILE}", json.dumps(trials))


@decorators.component
def Trainer(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    transform_graph: annotations.InputArtifact[standard_artifacts.TransformGraph],
    model: annotations.OutputArtifact[standard_artifacts.Model],
    training: annotations.Parameter[str],
    source: annotations.Parameter[str],
    fingerprint: annotations.Parameter[str],
    initial: annotations.Parameter[str] = "",
    steps: annotations.Parameter[str] = "",
    hyperparameters: annotations.InputArtifact[standard_artifacts.HyperParameters] = None,
    sources: annotations.InputArtifact[artifacts.Sources] = None,
) -> None:
    """Trains on the splits `train` and `validation` of `examples`, ExampleGen's or the Materializer's, writes `model`.

    `training`: JSON of `components.trainer.job.TrainingJob`. `source`, `fingerprint`, `initial` and `steps`:
    `components.trainer.job.TrainingParameters`. `hyperparameters`: the Tuner's best values, if there was a search.
    `sources`: by which a job with `left_out` tells the images that it does not see.

    Raises:
        InputError: `steps` is not a number, or the model that training begins from has changed or does not exist.

    and what `components.trainer.execution.run` does, or the `run` of `jobset` or `custom_job`.
    """
    parameters = TrainingParameters(source, fingerprint, initial, steps)
    best = {}
    if hyperparameters:
        best = json.loads(io_utils.read_string_file(f"{hyperparameters.uri}/{BEST_FILE}"))["values"]
    directory = path_utils.serving_model_dir(model.uri)
    job = _bind(training, parameters, examples, transform_graph, model_directory=directory, best=best)
    if job.left_out and sources:
        file = f"{sources.uri}/{leave_out.SOURCES_FILE}"
        job = job.model_copy(update={"left_out": job.left_out.model_copy(update={"sources": file})})
    # Each way imports its own client, of Vertex AI or of Kubernetes; training in this process needs neither.
    if job.custom_job:
        from components.trainer import custom_job

        custom_job.run(job, job.custom_job)
    elif job.placement and job.placement.replicas:
        from components.trainer import jobset

        jobset.run(job, job.placement)
    else:
        from components.trainer import execution

        job.write()
        execution.run(job)


def _bind(
    training: str, parameters: TrainingParameters, examples: Artifact, transform_graph: Artifact, **outputs: Any
) -> TrainingJob:
    splits = (shards.TRAIN, artifacts.validation_split(examples))
    train, validation = (artifacts.split_files(examples, split) for split in splits)
    data = {"transform_graph": transform_graph.uri, "train_files": train, "validation_files": validation}
    return TrainingJob.model_validate_json(training).bind(parameters, **data, **outputs)
