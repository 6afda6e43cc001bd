"""The TFX component of the EndpointPusher."""

import dataclasses
import json
from typing import Any, ClassVar

import pydantic
from absl import logging
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components.artifacts import Deployment
from components.published_models import published
from components.vertex import golden, rollout
from components.vertex.api import PACE, Api
from components.vertex.golden import Image
from components.vertex.options import Endpoint, Vertex

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
        """Raises what `components.vertex.rollout.push_model` does."""
        place = pydantic.TypeAdapter(Vertex).validate_json(exec_properties["vertex"])
        options = pydantic.TypeAdapter(Endpoint).validate_json(exec_properties["endpoint"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        output = artifact_utils.get_single_instance(output_dict["deployment"])
        uri = published(artifact_utils.get_single_instance(input_dict["pushed_model"]).uri)
        record: dict[str, Any] = {"deployed": False}
        if uri:

            def images() -> list[Image]:
                if options.golden:
                    return golden.in_place(options.golden)
                return golden.of_examples(examples.uri, SPLIT, options.golden_images)

            api = Api(place, self.pace)
            record = rollout.push_model(
                api, options, options.model or exec_properties["model_name"], uri, images
            ).record()
            output.set_string_custom_property("version", record["version"])
        else:
            logging.warning("The model was not published and so is not deployed.")
        output.set_int_custom_property("deployed", int(record["deployed"]))
        io_utils.write_string_file(f"{output.uri}/{RECORD_FILE}", json.dumps(record, indent=1) + "\n")


class EndpointPusherSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "vertex": component_spec.ExecutionParameter(type=str),
        "endpoint": component_spec.ExecutionParameter(type=str),
        "model_name": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS: ClassVar = {"deployment": component_spec.ChannelParameter(type=Deployment)}


class EndpointPusher(base_component.BaseComponent):
    """Deploys `pushed_model` to an endpoint of Vertex AI, where its split `eval` of `examples` checks it.

    TFX's own uploads a new model each time, never takes the old one away and checks nothing.
    """

    SPEC_CLASS = EndpointPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        pushed_model: types.BaseChannel,
        examples: types.BaseChannel,
        vertex: Vertex,
        endpoint: Endpoint,
        model_name: str,
    ):
        """Takes where and how to deploy; `model_name` is the model's where `endpoint.model` is empty."""
        spec = EndpointPusherSpec(
            vertex=json.dumps(dataclasses.asdict(vertex), sort_keys=True),
            endpoint=json.dumps(dataclasses.asdict(endpoint), sort_keys=True),
            model_name=model_name,
            pushed_model=pushed_model,
            examples=examples,
            deployment=types.Channel(type=Deployment),
        )
        super().__init__(spec=spec)
