"""The TFX component of the EndpointPusher."""

import dataclasses
import json
from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components.endpoint_pusher.artifacts import Deployment
from components.endpoint_pusher.executor import Executor
from components.endpoint_pusher.options import Endpoint
from components.vertex.options import Vertex


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
