"""The one graph: here components are wired, and nowhere else. Runners only choose how it is executed."""

import json
import pathlib

from tfx.components import StatisticsGen, Transform
from tfx.orchestration import metadata
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline

from components.champion import Judging
from components.settings import REGISTRY, IngestOptions, Rules
from components.steps.champion_gate import ChampionGate
from components.steps.endpoint_pusher import EndpointPusher
from components.steps.evaluator import Evaluator
from components.steps.example_gen import MarcoExampleGen
from components.steps.pusher import Pusher
from components.steps.report import Report
from components.steps.schema import CuratedSchema, ExampleValidator, schema_fingerprint, stats_options
from components.steps.trainer import Trainer, Tuner
from components.trainer.job import TrainingParameters
from marco_model.labels import LabelScheme
from pipelines.configuration import Configuration, Data
from pipelines.places import Places, training_job


def create_pipeline(
    configuration: Configuration,
    places: Places,
    scheme: LabelScheme,
    parameters: TrainingParameters,
    judging: Judging | None = None,
    run_label: str | RuntimeParameter = "",
    metadata_file: pathlib.Path | None = None,
) -> Pipeline:
    """Returns the whole pipeline over the shards at `parameters.source`, labelled by `scheme`.

    `parameters`, `judging` and `run_label`, a tag of the run in MLflow, are what changes from run to run: values, or
    parameters of a compiled package. `metadata_file`: the SQLite store of ML Metadata of a local run; a cluster has its
    own.

    Raises `InputError` if thresholds, gate or report name a class that is not one of the scheme's.
    """
    configuration.check_classes(scheme.classes)
    judging = judging or Judging()
    classes = json.dumps(scheme.classes)
    example_gen = MarcoExampleGen(
        input_uri=parameters.source,
        fingerprint=parameters.fingerprint,
        options=_ingest(configuration.data, scheme).model_dump_json(),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples, stats_options=stats_options())
    schema = CuratedSchema(fingerprint=schema_fingerprint(), classes=classes)
    example_validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema.outputs["schema"]
    )
    transform = Transform(
        examples=examples,
        schema=schema.outputs["schema"],
        preprocessing_fn="components.steps.transform.preprocessing_fn",
        custom_config=configuration.transform.model_dump(),
        disable_statistics=True,
    )
    transform.add_upstream_node(example_validator)
    inputs = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "training": training_job(configuration, scheme.classes, places).model_dump_json(),
        **vars(parameters),
    }
    tuners = [Tuner(**inputs)] if configuration.tuning else []
    best = {"hyperparameters": tuners[0].outputs["best_hyperparameters"]} if tuners else {}
    trainer = Trainer(**inputs, **best)
    evaluator = Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        thresholds=json.dumps(configuration.thresholds, sort_keys=True),
        classes=classes,
    )
    gate = ChampionGate(
        examples=examples,
        model=trainer.outputs["model"],
        evaluation=evaluator.outputs["evaluation"],
        model_blessing=evaluator.outputs["blessing"],
        champion=judging.champion,
        registered_model=configuration.model_name if configuration.gate.champion == REGISTRY else "",
        rules=configuration.gate.model_dump_json(include=set(Rules.model_fields)),
        classes=classes,
    )
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        destination=places.destination,
        registered_model=configuration.model_name,
        run_label=run_label,
        judging=judging,
    )
    report = Report(
        examples=examples,
        model=trainer.outputs["model"],
        evaluation=evaluator.outputs["evaluation"],
        decision=gate.outputs["decision"],
        options=configuration.report.model_dump_json(),
        data_fingerprint=parameters.fingerprint,
        synthetic=int(configuration.data.source is None),
    )
    endpoint_pushers = []
    if configuration.endpoint and configuration.vertex:
        endpoint_pushers = [
            EndpointPusher(
                pushed_model=pusher.outputs["pushed_model"],
                examples=examples,
                vertex=configuration.vertex.model_dump_json(),
                endpoint=configuration.endpoint.model_dump_json(),
                model_name=configuration.model_name,
            )
        ]
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
            gate,
            pusher,
            report,
            *endpoint_pushers,
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
        overlay=data.overlay,
    )
