"""TFX's ExampleValidator as a gate: it checks without the image bytes, and stops the run when anomalies are found."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow_data_validation as tfdv
from absl import logging
from google.protobuf import text_format
from tfx import types
from tfx.components.example_validator import component as tfx_component
from tfx.components.example_validator import executor as tfx_executor
from tfx.components.example_validator import labels
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.utils import io_utils, writer_utils

from marco_data import contract
from marco_model.errors import InputError
from marco_model.labels import CLASSES

STATISTICS_ENVIRONMENT = "STATISTICS"


def schema_text() -> str:
    """Returns the text of `schema.pbtxt`, wherever this package is installed."""
    return importlib.resources.files(__package__).joinpath("schema.pbtxt").read_text(encoding="utf-8")


def fingerprint() -> str:
    """Returns the SHA-256 of the curated schema, which belongs into the cache key of whoever writes it."""
    return hashlib.sha256(schema_text().encode()).hexdigest()


def curated_schema(
    institutions: Sequence[str] = (), imagers: Sequence[str] = (), classes: Sequence[str] = CLASSES
) -> Any:
    """Returns the `tensorflow_metadata` Schema; names given become domains, no names mean that any are fine.

    `classes`, in the order of their indices, are the domains of `image/class/label` and `image/class/text`.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = text_format.Parse(schema_text(), schema_pb2.Schema())
    domains = {contract.INSTITUTION: institutions, contract.IMAGER: imagers}
    for feature in schema.feature:
        if domains.get(feature.name):
            feature.string_domain.value.extend(sorted(set(domains[feature.name])))
        elif feature.name == contract.LABEL:
            feature.int_domain.max = len(classes) - 1
        elif feature.name == contract.LABEL_TEXT:
            feature.string_domain.value[:] = classes
    return schema


def statistics_features() -> list[str]:
    """Returns the features that statistics are taken of: all of the schema but the image bytes."""
    return [
        feature.name for feature in curated_schema().feature if STATISTICS_ENVIRONMENT not in feature.not_in_environment
    ]


def stats_options() -> Any:
    """Returns the `tfdv.StatsOptions` for ExampleGen's output, as TFX's `StatisticsGen(stats_options=…)` takes it.

    Image bytes are left out: their histograms and top values tell nothing, and would carry images into the metadata.
    """
    import tensorflow_data_validation as tfdv

    return tfdv.StatsOptions(feature_allowlist=statistics_features())


SCHEMA_FILE = "schema.pbtxt"


class SchemaExecutor(base_executor.BaseExecutor):
    """Writes the schema of the installed package."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `schema.pbtxt` with the domains given."""
        if exec_properties["fingerprint"] != fingerprint():
            logging.warning("The pipeline was compiled with another curated schema than the one installed here.")
        schema = curated_schema(*(json.loads(exec_properties[name]) for name in ("institutions", "imagers", "classes")))
        uri = artifact_utils.get_single_uri(output_dict["schema"])
        io_utils.write_string_file(f"{uri}/{SCHEMA_FILE}", text_format.MessageToString(schema))


class CuratedSchemaSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "fingerprint": component_spec.ExecutionParameter(type=str),
        "institutions": component_spec.ExecutionParameter(type=str),
        "imagers": component_spec.ExecutionParameter(type=str),
        "classes": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {}
    OUTPUTS: ClassVar = {"schema": component_spec.ChannelParameter(type=standard_artifacts.Schema)}


class CuratedSchema(base_component.BaseComponent):
    """Hands the curated schema to the graph as output `schema`."""

    SPEC_CLASS = CuratedSchemaSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(SchemaExecutor)

    def __init__(self, institutions: Sequence[str] = (), imagers: Sequence[str] = (), classes: Sequence[str] = CLASSES):
        """Takes the names that institution and imager may have, none given meaning any, and the classes in order."""
        spec = CuratedSchemaSpec(
            fingerprint=fingerprint(),
            institutions=json.dumps(sorted(institutions)),
            imagers=json.dumps(sorted(imagers)),
            classes=json.dumps(list(classes)),
            schema=types.Channel(type=standard_artifacts.Schema),
        )
        super().__init__(spec=spec)


def describe_anomaly(split: str, anomalies: Any, statistics: Any) -> str:
    """Returns one sentence that names every feature of `split` with its anomaly, or an empty string if there is none.

    `anomalies` and `statistics` are TFDV's of one split. TFDV itself finds nothing wrong with no examples at all.
    """
    if not sum(dataset.num_examples for dataset in statistics.datasets):
        return f"split {split}: it has no examples"
    found = [
        f"{name} - {info.description.rstrip('. ') or info.short_description}"
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        found.append(f"the split as a whole - {anomalies.dataset_anomaly_info.description.rstrip('. ')}")
    return f"split {split}: {'; '.join(found)}" if found else ""


def complaint(sentences: list[str]) -> str:
    """Returns what the gate says of all splits."""
    return (
        f"examples do not fit the curated schema ({' | '.join(sentences)}); mend the data or its ingest settings, "
        "or, if the data is right, the configured institutions and imagers or components/steps/schema.pbtxt"
    )


class ValidatorExecutor(tfx_executor.Executor):
    """Validates every split, writes the anomalies as TFX does, then raises if there are any."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> Any:
        """Runs TFX's validation.

        Raises:
            InputError: examples do not fit the schema; the message names split, feature, anomaly and mend.
        """
        self._found: list[str] = []
        result = super().Do(input_dict, output_dict, exec_properties)
        if self._found:
            raise InputError(complaint(self._found))
        return result

    def _Validate(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        """Validates one split in the environment without image bytes, which TFX's own method cannot choose."""
        statistics = inputs[standard_component_specs.STATISTICS_KEY]
        found = tfdv.validate_statistics(
            statistics=statistics,
            schema=inputs[standard_component_specs.SCHEMA_KEY],
            environment=STATISTICS_ENVIRONMENT,
        )
        folder = outputs[labels.SCHEMA_DIFF_PATH]
        writer_utils.write_anomalies(f"{folder}/SchemaDiff.pb", found)  # The name that TFX's tools look for.
        split = folder.rstrip("/").rsplit("Split-", 1)[-1]
        sentence = describe_anomaly(split, found, statistics)
        if sentence:
            self._found.append(sentence)
        return found


class ExampleValidator(tfx_component.ExampleValidator):
    """TFX's ExampleValidator (same inputs and outputs) that stops the run."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ValidatorExecutor)
