"""Deploys what the Pusher published; what it did not publish is not deployed."""

import json
from typing import Any

import pydantic
from absl import logging
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.endpoint_pusher import golden_images, pushing
from components.endpoint_pusher.golden import Image
from components.endpoint_pusher.options import Endpoint
from components.pusher.record import published
from components.vertex.api import PACE, Api
from components.vertex.options import Vertex

RECORD_FILE = "deployment.json"
SPLIT = "eval"


class Executor(base_executor.BaseExecutor):
    """Reads from the service how things are, so running it again changes nothing."""

    pace = PACE

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Raises what `components.endpoint_pusher.pushing.push` does."""
        place = pydantic.TypeAdapter(Vertex).validate_json(exec_properties["vertex"])
        options = pydantic.TypeAdapter(Endpoint).validate_json(exec_properties["endpoint"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        output = artifact_utils.get_single_instance(output_dict["deployment"])
        uri = published(artifact_utils.get_single_instance(input_dict["pushed_model"]).uri)
        record: dict[str, Any] = {"deployed": False}
        if uri:

            def images() -> list[Image]:
                if options.golden:
                    return golden_images.in_place(options.golden)
                return golden_images.of_examples(examples.uri, SPLIT, options.golden_images)

            api = Api(place, self.pace)
            record = pushing.push(api, options, options.model or exec_properties["model_name"], uri, images).record()
            output.set_string_custom_property("version", record["version"])
        else:
            logging.warning("The model was not published and so is not deployed.")
        output.set_int_custom_property("deployed", int(record["deployed"]))
        io_utils.write_string_file(f"{output.uri}/{RECORD_FILE}", json.dumps(record, indent=1) + "\n")
