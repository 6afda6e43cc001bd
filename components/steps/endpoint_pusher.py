"""The EndpointPusher: deploys a published model to an endpoint of Vertex AI, where examples check it.

TFX's own uploads a new model each time, never takes the old one away and checks nothing.
"""

import json
from typing import Any

from absl import logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, PushedModel
from tfx.utils import io_utils

from components import artifacts, published_models
from components.vertex import api, golden, options, rollout

RECORD_FILE = "deployment.json"
SPLIT = "eval"


@component
def EndpointPusher(
    pushed_model: InputArtifact[PushedModel],
    examples: InputArtifact[Examples],
    deployment: OutputArtifact[artifacts.Deployment],
    vertex: Parameter[str],
    endpoint: Parameter[str],
    model_name: Parameter[str],
) -> None:
    """Writes `deployment.json`; running it again changes nothing, since it reads the state from the service.

    JSON: `vertex` and `endpoint` (`components.vertex.options`). `model_name`: the model's if `endpoint.model` is empty.
    Raises what `components.vertex.rollout.push_model` does.
    """
    record: dict[str, Any] = {"deployed": False}
    uri = published_models.published_path(pushed_model.uri)
    if uri:
        place = options.Vertex.model_validate_json(vertex)
        chosen = options.Endpoint.model_validate_json(endpoint)
        record = deploy(uri, examples.uri, place, chosen, chosen.model or model_name)
        deployment.set_string_custom_property("version", record["version"])
    else:
        logging.warning("The model was not published and so is not deployed.")
    deployment.set_int_custom_property("deployed", int(record["deployed"]))
    io_utils.write_string_file(f"{deployment.uri}/{RECORD_FILE}", json.dumps(record, indent=1) + "\n")


def deploy(
    uri: str, examples: str, place: options.Vertex, endpoint: options.Endpoint, model_name: str
) -> dict[str, Any]:
    """Deploys the model at `uri` and returns the record; `endpoint.golden`, or else `examples`, check it."""

    def images() -> list[golden.Image]:
        if endpoint.golden:
            return golden.in_place(endpoint.golden)
        return golden.of_examples(examples, SPLIT, endpoint.golden_images)

    return rollout.push_model(api.Api(place, api.PACE), endpoint, model_name, uri, images).record()
