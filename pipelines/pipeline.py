"""The one graph: here components are wired, and nowhere else. Runners only choose how it is executed."""

import dataclasses
import pathlib

from tfx.components import StatisticsGen, Trainer, Transform, Tuner
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2

from components.evaluator.component import Evaluator
from components.example_gen.component import MarcoExampleGen
from components.example_gen.options import IngestOptions
from components.example_validator.component import ExampleValidator
from components.pusher.component import Pusher
from components.schema.component import CuratedSchema
from components.statistics_gen.options import stats_options
from marco_model.labels import LabelScheme
from pipelines.configuration import Configuration, Data
from pipelines.labelling import label_scheme
from pipelines.places import Places


def create_pipeline(
    configuration: Configuration,
    places: Places,
    source: str,
    fingerprint: str,
    metadata_file: pathlib.Path | None = None,
    initial: str = "",
) -> Pipeline:
    """Returns the whole pipeline over the shards at `source`, whose content `fingerprint` stands for in cache keys.

    `metadata_file`: the SQLite store of ML Metadata of a local run; a cluster has its own. `initial` stands for the
    content of the model that training begins from, where that can be read before the run.
    """
    scheme = label_scheme(configuration.labels, source)
    example_gen = MarcoExampleGen(source, fingerprint, _ingest(configuration.data, scheme))
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples, stats_options=stats_options())
    schema = CuratedSchema(classes=scheme.classes)
    example_validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema.outputs["schema"]
    )
    transform = Transform(
        examples=examples,
        schema=schema.outputs["schema"],
        preprocessing_fn="components.transform.preprocessing.preprocessing_fn",
        custom_config=configuration.transform.model_dump(),
        disable_statistics=True,
    )
    transform.add_upstream_node(example_validator)
    training = {**_training(configuration, scheme.classes, places, source, fingerprint), "initial": initial}
    inputs = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "train_args": trainer_pb2.TrainArgs(splits=["train"]),
        "eval_args": trainer_pb2.EvalArgs(splits=["eval"]),
    }
    tuners = []
    if configuration.tuning:
        tuning = {"tuning": dataclasses.asdict(configuration.tuning)}
        tuners = [Tuner(tuner_fn="components.tuner.run.tuner_fn", custom_config=training | tuning, **inputs)]
    trainer = Trainer(
        run_fn="components.trainer.run.run_fn",
        hyperparameters=tuners[0].outputs["best_hyperparameters"] if tuners else None,
        custom_config=training,
        **inputs,
    )
    evaluator = Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        thresholds=configuration.thresholds,
        classes=scheme.classes,
    )
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        destination=places.destination,
        registered_model=configuration.model_name,
    )
    return Pipeline(
        pipeline_name=configuration.name,
        pipeline_root=places.root,
        components=[
            example_gen,
            statistics_gen,
            schema,
            example_validator,
            transform,
            *tuners,
            trainer,
            evaluator,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=(
            metadata.sqlite_metadata_connection_config(str(metadata_file)) if metadata_file else None
        ),
        beam_pipeline_args=list(configuration.beam),
    )


def _ingest(data: Data, scheme: LabelScheme) -> IngestOptions:
    return IngestOptions(
        split_by=data.split_by,
        eval_share=data.eval_share,
        max_quarantined=data.max_quarantined,
        max_pixels=data.max_pixels,
        imager_rules=data.imagers,
        label_scheme=scheme,
    )


def _training(
    configuration: Configuration, classes: tuple[str, ...], places: Places, source: str, fingerprint: str
) -> dict:
    return {
        "classes": list(classes),
        "network": dataclasses.asdict(configuration.network),
        "recipe": dataclasses.asdict(configuration.recipe),
        "engine": dataclasses.asdict(configuration.engine),
        "transform": configuration.transform.model_dump(),
        "export": configuration.export.model_dump(),
        "tracking": {"uri": places.tracking, "experiment": configuration.tracking.experiment},
        "data": {"source": source, "fingerprint": fingerprint},
        "model_name": configuration.model_name,
        "checkpoints": places.checkpoints,
    }
