"""TFX's ExampleValidator as a gate: it checks without the image bytes, and stops the run when anomalies are found."""

from typing import Any

import tensorflow_data_validation as tfdv
from tfx import types
from tfx.components.example_validator import component as tfx_component
from tfx.components.example_validator import executor as tfx_executor
from tfx.components.example_validator import labels
from tfx.dsl.components.base import executor_spec
from tfx.types import standard_component_specs
from tfx.utils import writer_utils

from components.example_validator import anomalies as words
from components.schema import curated
from marco_model.errors import InputError


class Executor(tfx_executor.Executor):
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
            raise InputError(words.complaint(self._found))
        return result

    def _Validate(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        """Validates one split in the environment without image bytes, which TFX's own method cannot choose."""
        statistics = inputs[standard_component_specs.STATISTICS_KEY]
        found = tfdv.validate_statistics(
            statistics=statistics,
            schema=inputs[standard_component_specs.SCHEMA_KEY],
            environment=curated.STATISTICS_ENVIRONMENT,
        )
        folder = outputs[labels.SCHEMA_DIFF_PATH]
        writer_utils.write_anomalies(f"{folder}/SchemaDiff.pb", found)  # The name that TFX's tools look for.
        split = folder.rstrip("/").rsplit("Split-", 1)[-1]
        sentence = words.sentence(split, found, statistics)
        if sentence:
            self._found.append(sentence)
        return found


class ExampleValidator(tfx_component.ExampleValidator):
    """TFX's ExampleValidator (same inputs and outputs) that stops the run."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
