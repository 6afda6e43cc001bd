"""The steps that read and check the data: MarcoExampleGen, CuratedSchema and ExampleValidator.

MarcoExampleGen reads MARCO shards, checks every record, and writes Examples and what failed. TFX's file-based
ExampleGens do part of their work in a driver that Kubeflow Pipelines never starts. Here the data set's fingerprint is a
parameter instead: it enters the cache key, and the step runs again when the data has changed.

CuratedSchema writes the schema, and ExampleValidator is TFX's as a gate that stops the run when it finds anomalies.
Statistics and validation leave out the image bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow_data_validation as tfdv
from absl import logging
from tfx.components.example_validator import component, executor, labels as validator_labels
from tfx.components.util import examples_utils
from tfx.dsl.component.experimental import annotations, decorators
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2
from tfx.types import Artifact, artifact_utils, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, writer_utils

from components import artifacts, settings
from components.example_gen import files, ingest
from marco_data import contract, shards
from marco_model import errors, labels

SCHEMA = Path(__file__).with_name("schema.pbtxt")
"""The curated schema as this package brings it; the step writes one of the same name."""
LAYOUT = 3
"""Of the files that MarcoExampleGen writes; raised when it changes, so that outputs from before are not reused."""
STATISTICS_ENVIRONMENT = "STATISTICS"


@decorators.component(use_beam=True)
def MarcoExampleGen(
    examples: annotations.OutputArtifact[standard_artifacts.Examples],
    quarantine: annotations.OutputArtifact[artifacts.Quarantine],
    input_uri: annotations.Parameter[str],
    fingerprint: annotations.Parameter[str],
    options: annotations.Parameter[str],
    layout: annotations.Parameter[int],
    beam_pipeline: annotations.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `examples` with their splits (`marco_data.shards`), described as TFX's own do, and `quarantine`.

    `input_uri`: folder, file or glob of shards, local or `gs://`. `fingerprint`: that of `marco_data.shards` for the
    input and the overlay, or anything that changes with them. `options`: JSON of `components.settings.IngestOptions`.
    `layout`: `LAYOUT`.

    Raises `InputError` if too much was quarantined or a split is empty. TFX then deletes the outputs; the quarantine is
    kept beside them, under its name and `-kept`.
    """
    chosen = settings.IngestOptions.model_validate_json(options)
    try:
        summary = ingest.ingest([input_uri], examples.uri, quarantine.uri, chosen, beam_pipeline)
        _require_splits(summary, input_uri, chosen)
    except errors.InputError as error:
        kept = f"{quarantine.uri.rstrip('/')}-kept"
        files.copy_folder(quarantine.uri, kept)
        raise errors.InputError(str(error).replace(quarantine.uri, kept)) from error
    examples.split_names = artifact_utils.encode_split_names(list(summary["splits"]))
    examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    for name in ("read", "written", "quarantined", "left_out"):
        quarantine.set_int_custom_property(name, summary[name])
    quarantine.set_int_custom_property("relabelled", summary["relabelled"]["total"])


def _require_splits(summary: dict[str, Any], input_uri: str, options: settings.IngestOptions) -> None:
    remedies = {shards.TRAIN: "add train shards, or split by hash", shards.EVAL: "add test shards, or split by hash"}
    if options.splits == settings.THREE:
        remedies[shards.VALIDATION] = (
            f"add images, validation shards or a larger data.validation_share than {options.validation_share:g}"
        )
    for split, remedy in remedies.items():
        if not summary["splits"].get(split):
            raise errors.InputError(
                f"the {split} split of {input_uri!r} is empty: {summary['read']} records read, "
                f"{summary['quarantined']} quarantined, {summary['left_out']} left out; {remedy}"
            )


def schema_fingerprint() -> str:
    """Returns the SHA-256 of the curated schema, which belongs in the cache key of the step that writes it."""
    return hashlib.sha256(SCHEMA.read_bytes()).hexdigest()


def curated_schema(classes: Sequence[str] = labels.CLASSES) -> Any:
    """Returns the `tensorflow_metadata` Schema.

    `classes`, in the order of their indices, are the domains of `image/class/label` and `image/class/text`.
    """
    schema = tfdv.load_schema_text(str(SCHEMA))
    for feature in schema.feature:
        if feature.name == contract.LABEL:
            feature.int_domain.max = len(classes) - 1
        elif feature.name == contract.LABEL_TEXT:
            feature.string_domain.value[:] = classes
    return schema


def stats_options() -> Any:
    """Returns the `tfdv.StatsOptions` for ExampleGen's output, as TFX's `StatisticsGen(stats_options=…)` takes it.

    Image bytes are left out: their histograms and top values mean nothing, and would carry images into the metadata.
    """
    features = curated_schema().feature
    names = [feature.name for feature in features if STATISTICS_ENVIRONMENT not in feature.not_in_environment]
    return tfdv.StatsOptions(feature_allowlist=names)


@decorators.component
def CuratedSchema(
    schema: annotations.OutputArtifact[standard_artifacts.Schema],
    fingerprint: annotations.Parameter[str],
    classes: annotations.Parameter[str],
) -> None:
    """Writes `schema.pbtxt` of the installed package for these classes.

    `fingerprint`: `schema_fingerprint()`, so that the cache knows which schema it holds. `classes`: JSON, names in
    index order.
    """
    if fingerprint != schema_fingerprint():
        logging.warning("The pipeline was compiled with another curated schema than the one installed here.")
    io_utils.write_pbtxt_file(f"{schema.uri}/{SCHEMA.name}", curated_schema(json.loads(classes)))


def describe_anomaly(split: str, anomalies: Any, statistics: Any) -> str:
    """Returns one sentence that names every feature of `split` with its anomaly, empty if there are none.

    `anomalies` and `statistics`: TFDV's messages for one split. TFDV itself accepts a split without examples.
    """
    if not sum(dataset.num_examples for dataset in statistics.datasets):
        return f"split {split}: it has no examples"
    descriptions = [
        f"{name} - {info.description.rstrip('. ') or info.short_description}"
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        descriptions.append(f"the split as a whole - {anomalies.dataset_anomaly_info.description.rstrip('. ')}")
    return f"split {split}: {'; '.join(descriptions)}" if descriptions else ""


class ValidatorExecutor(executor.Executor):
    """Validates every split, writes the anomalies as TFX does, then raises if there are any.

    It extends TFX's own executor, which reads the artifacts of all splits, so it stays a class.
    """

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> Any:
        """Runs TFX's validation; raises `InputError`, which names split, feature, anomaly and fix, for any anomaly."""
        self._sentences: list[str] = []
        result = super().Do(input_dict, output_dict, exec_properties)
        if self._sentences:
            raise errors.InputError(
                f"examples do not fit the curated schema ({' | '.join(self._sentences)}); fix the data or its ingest "
                "settings, or, if the data is right, components/steps/schema.pbtxt"
            )
        return result

    def _Validate(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        """Validates one split in the environment without image bytes, which TFX's own method cannot choose."""
        statistics = inputs[standard_component_specs.STATISTICS_KEY]
        anomalies = tfdv.validate_statistics(
            statistics=statistics,
            schema=inputs[standard_component_specs.SCHEMA_KEY],
            environment=STATISTICS_ENVIRONMENT,
        )
        folder = outputs[validator_labels.SCHEMA_DIFF_PATH]
        writer_utils.write_anomalies(f"{folder}/SchemaDiff.pb", anomalies)  # The name that TFX's tools look for.
        split = folder.rstrip("/").rsplit("Split-", 1)[-1]
        sentence = describe_anomaly(split, anomalies, statistics)
        if sentence:
            self._sentences.append(sentence)
        return anomalies


class ExampleValidator(component.ExampleValidator):
    """TFX's ExampleValidator (same inputs and outputs) that stops the run."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ValidatorExecutor)
