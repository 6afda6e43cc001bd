"""The TFX component that writes the curated schema.

TFX's own ImportSchemaGen takes a path, which inside a container is another than on the machine that compiles; here the
file comes out of the installed package, and its hash is a parameter, so that a changed schema is not taken for cached.
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from absl import logging
from google.protobuf import text_format
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components.schema import curated
from marco_model.labels import CLASSES

SCHEMA_FILE = "schema.pbtxt"


class Executor(base_executor.BaseExecutor):
    """Writes the schema of the installed package."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `schema.pbtxt` with the domains given."""
        if exec_properties["fingerprint"] != curated.fingerprint():
            logging.warning("The pipeline was compiled with another curated schema than the one installed here.")
        schema = curated.curated_schema(
            *(json.loads(exec_properties[name]) for name in ("institutions", "imagers", "classes"))
        )
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
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, institutions: Sequence[str] = (), imagers: Sequence[str] = (), classes: Sequence[str] = CLASSES):
        """Takes the names that institution and imager may have, none given meaning any, and the classes in order."""
        spec = CuratedSchemaSpec(
            fingerprint=curated.fingerprint(),
            institutions=json.dumps(sorted(institutions)),
            imagers=json.dumps(sorted(imagers)),
            classes=json.dumps(list(classes)),
            schema=types.Channel(type=standard_artifacts.Schema),
        )
        super().__init__(spec=spec)
