"""The one graph: here components are wired, and nowhere else. Runners only choose how it is executed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfx.components import StatisticsGen, Transform
from tfx.orchestration import data_types, metadata, pipeline

from components import champion, machines, settings
from components.steps import evaluation, ingestion, leave_out, pusher, trainer, transform
from components.trainer import job
from marco_data import place_reader, shards
from marco_model import InputError, labels, weights
from pipelines import configuration as configurations, places


def create_pipeline(
    configuration: configurations.Configuration,
    where: places.Places,
    scheme: labels.LabelScheme,
    parameters: job.TrainingParameters,
    judging: champion.Judging | None = None,
    run_label: str | data_types.RuntimeParameter = "",
    run_name: str | data_types.RuntimeParameter = "",
    note: str | data_types.RuntimeParameter = "",
    metadata_file: Path | None = None,
) -> pipeline.Pipeline:
    """Returns the whole pipeline over the shards at `parameters.source`, labelled by `scheme`.

    `parameters`, `judging` and a tag, the name and the description of the run in MLflow (`run_label`, `run_name` and
    `note`) are what changes from run to run: values, or parameters of a compiled package. `metadata_file`: the SQLite
    store of ML Metadata of a local run; a cluster has its own.

    Raises `InputError` if thresholds, gate or report name a class that is not one of the scheme's.
    """
    configuration.check_classes(scheme.classes)
    judging = judging or champion.Judging()
    classes = json.dumps(scheme.classes)
    data = configuration.data
    shared = data.model_dump(include=set(settings.IngestOptions.model_fields))
    ingest = settings.IngestOptions(
        **shared,
        imager_rules=data.imagers,
        label_scheme=scheme,
        names_content=place_reader.content_digest(data.names),
    )
    ingested = ingestion.MarcoExampleGen(
        input_uri=parameters.source,
        fingerprint=parameters.fingerprint,
        options=ingest.model_dump_json(),
        layout=ingestion.LAYOUT,
    )
    examples = ingested.outputs["examples"]
    statistics = StatisticsGen(examples=examples, stats_options=ingestion.stats_options())
    curated = ingestion.CuratedSchema(fingerprint=ingestion.schema_fingerprint(), classes=classes)
    validated = ingestion.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=curated.outputs["schema"]
    )
    transformed = Transform(
        examples=examples,
        schema=curated.outputs["schema"],
        preprocessing_fn="components.steps.transform.preprocessing_fn",
        custom_config=configuration.transform.model_dump(),
        disable_statistics=True,
        materialize=False,
    )
    transformed.add_upstream_node(validated)
    transform_graph = transformed.outputs["transform_graph"]
    changed = []
    if configuration.transform.shorter_side:
        changed = [transform.Materializer(examples=examples, transform_graph=transform_graph)]
    inputs = {
        "examples": changed[0].outputs["transformed_examples"] if changed else examples,
        "transform_graph": transform_graph,
        "training": training_job(configuration, scheme.classes, where).model_dump_json(),
        **vars(parameters),
    }
    tuned = [trainer.Tuner(**inputs)] if configuration.tuning else []
    best = {"hyperparameters": tuned[0].outputs["best_hyperparameters"]} if tuned else {}
    trained = trainer.Trainer(**inputs, **best)
    model = trained.outputs["model"]
    evaluated = evaluation.Evaluator(
        examples=examples,
        model=model,
        thresholds=json.dumps(configuration.thresholds, sort_keys=True),
        classes=classes,
        average=configuration.report.average,
    )
    decided = evaluation.ChampionGate(
        examples=examples,
        model=model,
        evaluation=evaluated.outputs["evaluation"],
        model_blessing=evaluated.outputs["blessing"],
        champion=judging.champion,
        registered_model=configuration.model_name if configuration.gate.champion == settings.REGISTRY else "",
        initial="" if configuration.gate.champion == settings.NONE else configuration.network.initial,
        rules=configuration.gate.model_dump_json(include=set(settings.Rules.model_fields)),
        classes=classes,
    )
    published = pusher.Pusher(
        model=model,
        model_blessing=decided.outputs["blessing"],
        destination=where.destination,
        registered_model=configuration.model_name,
        run_label=run_label,
        run_name=run_name,
        note=note,
        judged_against=judging.champion,
        signature=judging.signature,
    )
    reported = evaluation.Report(
        examples=examples,
        model=model,
        evaluation=evaluated.outputs["evaluation"],
        decision=decided.outputs["decision"],
        options=configuration.report.model_dump_json(),
        data_fingerprint=parameters.fingerprint,
        synthetic=int(data.source is None),
    )
    steps = [ingested, statistics, curated, validated, transformed, *changed, *tuned, trained]
    steps += [evaluated, decided, published, reported]
    if configuration.endpoint and configuration.vertex:
        deployed = pusher.EndpointPusher(
            pushed_model=published.outputs["pushed_model"],
            examples=examples,
            vertex=configuration.vertex.model_dump_json(),
            endpoint=configuration.endpoint.model_dump_json(),
            model_name=configuration.model_name,
        )
        steps.append(deployed)
    if configuration.leave_out:
        judged = {"model": model, "evaluation": evaluated.outputs["evaluation"]}
        steps += leave_one_out(configuration, configuration.leave_out, scheme.classes, examples, inputs, judged)
    return pipeline.Pipeline(
        pipeline_name=configuration.name,
        pipeline_root=where.root,
        components=steps,
        enable_cache=True,
        metadata_connection_config=(
            metadata.sqlite_metadata_connection_config(str(metadata_file)) if metadata_file else None
        ),
        beam_pipeline_args=list(configuration.beam),
    )


def leave_one_out(
    configuration: configurations.Configuration,
    chosen: settings.LeaveOut,
    classes: Sequence[str],
    examples: Any,
    inputs: Mapping[str, Any],
    judged: Mapping[str, Any],
) -> list[Any]:
    """Returns the steps that train and judge once without each value of `chosen`, and compare that with `judged`.

    `examples`: ExampleGen's; `inputs`: the Trainer's; `judged`: the channels `model` and `evaluation` of the training
    on all images. No step waits for another value's but LeaveOneOut, and a Trainer whose training is on several nodes
    of a cluster; no model is published.

    Raises `InputError` if `chosen` names no value.
    """
    if not chosen.values:
        raise InputError(
            f"leave_out names no {chosen.attribute}, and a package needs them: --leave-out {chosen.attribute}=NAME,NAME"
        )
    found = leave_out.Sources(examples=examples, attribute=chosen.attribute, values=json.dumps(chosen.values))
    whole, steps = job.TrainingJob.model_validate_json(inputs["training"]), [found]
    earlier: dict[str, Any] = {}
    in_turn, last = bool(whole.placement and whole.placement.replicas), judged["model"].producer_component
    for number, value in enumerate(chosen.values, 1):
        left_out = job.LeftOut(attribute=chosen.attribute, value=value)
        copy = "".join(f"{machines.COPY}{part}" for part in (number, left_out.slug) if part)
        training = whole.without(left_out).model_dump_json()
        trained = trainer.Trainer(**{**inputs, "training": training}, sources=found.outputs["sources"])
        if in_turn:  # JobSets that start together could each get some of their pods, and wait for the others forever.
            trained.add_upstream_node(last)
            last = trained
        evaluated = evaluation.Evaluator(
            examples=examples,
            model=trained.outputs["model"],
            thresholds="{}",  # Nothing of it is to be blessed.
            classes=json.dumps(classes),
        )
        compared = leave_out.LeaveOneOut(
            **judged,
            away_model=trained.outputs["model"],
            away_evaluation=evaluated.outputs["evaluation"],
            attribute=chosen.attribute,
            values=json.dumps(chosen.values[:number]),
            target=configuration.report.target_of(classes) or "",
            smallest=configuration.gate.smallest_slice,
            **earlier,
        )
        earlier = {"earlier": compared.outputs["report"]}
        # The last one has the whole table, and the step's own name.
        copies = [trained, evaluated, *([compared] if number < len(chosen.values) else [])]
        steps += [trained, evaluated, compared]
        for step in copies:
            step.with_id(step.id + copy)
    return steps


def create_local_pipeline(configuration: configurations.Configuration, source: str, output: Path) -> pipeline.Pipeline:
    """Returns the pipeline of a run on this machine over the shards at `source`, with all files below `output`.

    Raises `InputError` if the shards cannot be read or do not fit the configuration, if training cannot begin from
    `network.initial`, or if the champion has other classes.
    """
    weights.check_initial(configuration.network)
    configuration = configurations.find_left_out(configuration, source)
    where = places.local(configuration, output)
    scheme = configurations.label_scheme(configuration.labels, source)
    content = shards.fingerprint([source], configuration.data.overlay)
    parameters = job.TrainingParameters(source, content, weights.initial_fingerprint(configuration.network.initial))
    champions = lookup(configuration, scheme.classes, where)
    own = champion.signature(champions.settings, parameters.fingerprint, parameters.initial, parameters.steps)
    judging = champion.Judging(champions.to_beat(own), own)
    champion.check_classes(str(judging.champion), scheme.classes)
    metadata_file = output.resolve() / "metadata.db"
    return create_pipeline(configuration, where, scheme, parameters, judging, metadata_file=metadata_file)


def training_job(
    configuration: configurations.Configuration, classes: Sequence[str], where: places.Places
) -> job.TrainingJob:
    """Returns the training of a configuration, not yet bound to the data of a run: the one definition of it."""
    return job.TrainingJob(
        classes=tuple(classes),
        network=configuration.network,
        recipe=configuration.recipe,
        transform=configuration.transform,
        data=job.DataSet(overlay=configuration.data.overlay),
        tuning=configuration.tuning,
        engine=configuration.engine,
        tflite=configuration.export.tflite,
        time_course=configuration.export.time_course,
        tracking=job.TrackingServer(**configuration.tracking.model_dump() | {"uri": where.tracking}),
        name=configuration.model_name,
        checkpoints=where.checkpoints,
        placement=where.placement,
        gpus=where.gpus,
        custom_job=where.custom_job,
    )


def lookup(
    configuration: configurations.Configuration, classes: Sequence[str], where: places.Places, image: str = ""
) -> champion.Lookup:
    """Returns where a run looks for the champion.

    Its settings are all that makes a training another one (data and weights by their fingerprints), and where steps are
    kept to be reused: the same training in another place is another run, and has the champion to beat. `image`: the
    container's, which is part of that too.
    """
    content = {
        "training": training_job(configuration, classes, where).identity("run"),
        "data": configuration.data.model_dump(mode="json", exclude={"source", "synthetic"}),
        "labels": configuration.labels.model_dump(mode="json"),
        "kept": [configuration.name, where.root, image],
    }
    return champion.Lookup(
        champion=configuration.gate.champion,
        tracking=where.tracking,
        model_name=configuration.model_name,
        settings=settings.digest(content),
    )
