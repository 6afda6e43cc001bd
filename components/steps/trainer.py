"""The Trainer: trains the network on the transformed examples, exports the model and records the run in MLflow.

A function of our own in place of TFX's Trainer: the job and what a schedule changes arrive as parameters, and the
training itself is `components.trainer`.
"""

import json

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, HyperParameters, Model, TransformGraph
from tfx.utils import io_utils, path_utils

from components import artifacts
from components.trainer import job as jobs


@component
def Trainer(
    examples: InputArtifact[Examples],
    transform_graph: InputArtifact[TransformGraph],
    model: OutputArtifact[Model],
    training: Parameter[str],
    source: Parameter[str],
    fingerprint: Parameter[str],
    initial: Parameter[str] = "",
    steps: Parameter[str] = "",
    hyperparameters: InputArtifact[HyperParameters] = None,
) -> None:
    """Trains on the splits `train` and `eval` of `examples`, which Transform wrote, and writes `model`.

    `training`: JSON of `components.trainer.job.TrainingJob`. `source`, `fingerprint`, `initial` and `steps`:
    `components.trainer.job.TrainingParameters`. `hyperparameters`: a Tuner's best values, if there was a search.

    Raises:
        InputError: `steps` is not a number, or the model that training begins from has changed or does not exist.

    and what `components.trainer.execution.run` does, or the `run` of `jobset` or `custom_job`.
    """
    best = {}
    if hyperparameters:
        best = json.loads(io_utils.read_string_file(f"{hyperparameters.uri}/{jobs.BEST_FILE}"))["values"]
    job = jobs.TrainingJob.model_validate_json(training).bind(
        jobs.TrainingParameters(source, fingerprint, initial, steps),
        transform_graph=transform_graph.uri,
        train_files=artifacts.split_files(examples, "train"),
        eval_files=artifacts.split_files(examples, "eval"),
        model_directory=path_utils.serving_model_dir(model.uri),
        best=best,
    )
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
