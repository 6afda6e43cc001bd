"""The documents that `marco serve` reads and writes, free of any web framework.

In this order: KServe's V1 protocol, which is TensorFlow Serving's and Vertex AI's too; V2, the Open Inference Protocol,
with its binary extension; CloudEvents around V1's requests; and the environment of a container on Vertex AI.
https://kserve.github.io/website/docs/concepts/architecture/data-plane
"""

import datetime
import math
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pydantic_core

from marco_model import errors
from marco_scoring.serving import classify

SIGNATURE = "serving_default"

MOST_VALUES = 100_000
"""Most commas and opening brackets of a JSON document, those in texts too: no other thread runs while its values are
made, and each takes up to 80 bytes for three in the document."""


def parse_json(text: bytes) -> Any:
    """Returns the value of a JSON document in UTF-8 (RFC 8259, section 8.1); raises `RequestError` if it is not.

    By pydantic's parser: `json` takes three times as long for a large image, in which no other thread runs, and accepts
    half of a surrogate pair, which cannot be written back. More than `MOST_VALUES` are refused.
    """
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise classify.RequestError(f"a JSON document of more than {MOST_VALUES} values; send fewer images at once")
    try:
        return pydantic_core.from_json(text)
    except ValueError as error:
        raise classify.RequestError(f"not JSON: {errors.one_line(error)}") from None


def check_count(count: int, limits: classify.Limits) -> None:
    """Raises `RequestError` for a request without images or with more than are allowed."""
    if not 1 <= count <= limits.max_instances:
        raise classify.RequestError(f"{count} images in a request; from 1 to {limits.max_instances} are allowed")


# V1


def v1_images(body: Any, limits: classify.Limits) -> list[classify.Instance]:
    """Returns the images of `{"instances": […]}`; other keys, such as Vertex AI's `parameters`, are ignored.

    Raises `RequestError` if the request is malformed as a whole.
    """
    if not isinstance(body, dict) or not isinstance(body.get("instances"), list):
        raise classify.RequestError('expected a JSON object with a list of "instances"')
    if (signature := body.get("signature_name", SIGNATURE)) not in ("", None, SIGNATURE):
        raise classify.RequestError(f"signature_name is {str(signature)[:100]!r}; only {SIGNATURE} is served")
    instances = body["instances"]
    check_count(len(instances), limits)
    return [classify.from_json(instance, limits) for instance in instances]


def v1_response(outcomes: Sequence[classify.Outcome], classes: Sequence[str]) -> dict[str, Any]:
    """Returns `{"predictions": […]}` with one object per instance.

    The object has what the SavedModel returns for a row, `scores`, `classes`, `class`, `probabilities` and `version`,
    and `novelty` if the model tells it, or only `error`, the reason why the image has no scores.
    """
    refused = classify.Refused
    rows = [{"error": each.reason} if isinstance(each, refused) else _row(each, classes) for each in outcomes]
    return {"predictions": rows}


def _row(outcome: classify.Scored, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "scores": outcome.scores.tolist(),
        "classes": list(classes),
        "class": classes[int(outcome.scores.argmax())],
        "probabilities": outcome.probabilities.tolist(),
        "version": outcome.version,
        **({} if outcome.novelty is None else {"novelty": outcome.novelty}),
    }


# V2

ERROR = "error"
_SIZE = "binary_data_size"


class Request(NamedTuple):
    """A V2 request: its images, its id, and the names of the requested outputs, where an empty tuple means all."""

    images: list[classify.Instance]
    id: str | None
    outputs: tuple[str, ...]


def v2_tensors(classes: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the metadata of `inputs` and `outputs`: those of the SavedModel, `novelty` and `error`."""
    shapes: dict[str, tuple[str, list[int]]] = {
        "scores": ("FP32", [-1, classes]),
        "classes": ("BYTES", [-1, classes]),
        "class": ("BYTES", [-1]),
        "probabilities": ("FP32", [-1, classes]),
        "version": ("BYTES", [-1]),
        "novelty": ("FP32", [-1]),
        ERROR: ("BYTES", [-1]),
    }
    return {
        "inputs": [{"name": classify.INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in shapes.items()],
    }


def read_v2(body: Any, limits: classify.Limits, tail: bytes = b"") -> Request:
    """Reads an inference request: the JSON value `body`, and the binary data that followed it.

    Raises `RequestError` if it is malformed as a whole.
    """
    tensors = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(tensors, list) or len(tensors) != 1 or not isinstance(tensors[0], dict):
        raise classify.RequestError(f'expected a JSON object whose "inputs" is a list of one tensor, {classify.INPUT}')
    tensor = tensors[0]
    if tensor.get("name") != classify.INPUT or tensor.get("datatype") != "BYTES":
        raise classify.RequestError(
            f"the input is {str(tensor.get('name'))[:100]!r} of {str(tensor.get('datatype'))[:100]!r}; "
            f"expected {classify.INPUT!r} of 'BYTES'"
        )
    parameters = tensor.get("parameters")
    size = parameters.get(_SIZE) if isinstance(parameters, dict) else None
    elements = _flatten(tensor.get("data")) if size is None else _split_binary(tail, size, limits)
    _check_shape(tensor.get("shape"), len(elements))
    check_count(len(elements), limits)
    request_id = body.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise classify.RequestError(f"id is {str(request_id)[:100]}; expected a string")
    return Request([_image(element, limits) for element in elements], request_id, _requested_outputs(body))


def read_v2_binary(body: bytes, json_length: str | None, limits: classify.Limits) -> Request:
    """Reads a body of JSON and then binary data; `json_length` is its header `Inference-Header-Content-Length`.

    Without that header all of it is JSON. Raises `RequestError` if it is malformed as a whole.
    """
    length = len(body)
    if json_length is not None:
        digits = json_length.isascii() and json_length.isdigit() and len(json_length) <= 12
        if not digits or int(json_length) > length:
            raise classify.RequestError(f"Inference-Header-Content-Length is {json_length[:100]!r} for {length} bytes")
        length = int(json_length)
    return read_v2(parse_json(body[:length]), limits, body[length:])


def v2_response(request: Request, outcomes: Sequence[classify.Outcome], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the output tensors, `data` in row-major order.

    A refused image has its reason in `error`, 0 for scores and probabilities, and empty strings for class and version;
    a scored one has an empty `error`. `error` is always returned, so that nobody takes zeros for scores.
    """
    zeros = np.zeros(len(classes))
    blank = {**_row(classify.Scored(zeros, zeros, "", 0.0), classes), "class": ""}
    rows: list[dict[str, Any]] = [
        {**blank, ERROR: outcome.reason}
        if isinstance(outcome, classify.Refused)
        else {**blank, **_row(outcome, classes), ERROR: ""}
        for outcome in outcomes
    ]
    return [
        {
            **output,
            "shape": [len(rows), *output["shape"][1:]],
            "parameters": None,  # KServe's server writes it too.
            "data": _flatten([row[output["name"]] for row in rows]),
        }
        for output in v2_tensors(len(classes))["outputs"]
        if not request.outputs or output["name"] in (*request.outputs, ERROR)
    ]


def _image(element: Any, limits: classify.Limits) -> classify.Instance:
    if isinstance(element, bytes):
        return classify.from_bytes(element, limits)
    return classify.from_base64(element, limits) if isinstance(element, str) else classify.from_json(element, limits)


def _flatten(data: Any) -> list[Any]:
    """Flattens a tensor's data, which may be nested as its shape is."""
    if not isinstance(data, list):
        raise classify.RequestError(f'the tensor {classify.INPUT} has no list of "data"')
    return [element for part in data for element in (part if isinstance(part, list) else [part])]


def _split_binary(tail: bytes, size: Any, limits: classify.Limits) -> list[bytes]:
    """Splits binary data: each element is its length, 4 bytes little-endian, and its bytes."""
    if not isinstance(size, int) or size != len(tail):
        raise classify.RequestError(f"{_SIZE} is {str(size)[:100]}, and {len(tail)} bytes follow the JSON")
    elements, position = [], 0
    while position < len(tail):
        begin = position + 4
        position = begin + (struct.unpack_from("<I", tail, position)[0] if begin <= len(tail) else 0)
        if position > len(tail):
            raise classify.RequestError("the binary data ends within an element")
        elements.append(tail[begin:position])
        check_count(len(elements), limits)
    return elements


def _check_shape(shape: Any, count: int) -> None:
    if (
        not isinstance(shape, list)
        or not all(type(side) in (int, float) and 0 <= side <= count for side in shape)
        or not 1 <= len(shape) <= 2
        or math.prod(shape) != count
    ):
        raise classify.RequestError(
            f"the tensor's shape is {str(shape)[:100]} for {count} elements; expected [{count}]"
        )


def _requested_outputs(body: dict[str, Any]) -> tuple[str, ...]:
    outputs = body.get("outputs") or []
    known = sorted(output["name"] for output in v2_tensors(0)["outputs"])
    listed = outputs if isinstance(outputs, list) else [None]
    names: list[Any] = [output.get("name") if isinstance(output, dict) else None for output in listed]
    if not all(name in known for name in names):
        raise classify.RequestError(
            f"outputs is {str(outputs)[:100]}; expected a list of objects with a name of {known}"
        )
    return tuple(names)


# CloudEvents 1.0 (https://github.com/cloudevents/spec), as KServe's server reads and writes them

_EVENT_HEADERS = ("ce-id", "ce-source", "ce-specversion", "ce-type")
_EVENT_KEYS = {"specversion", "id", "source", "type", "time", "data"}
_EVENT_JSON = "application/cloudevents+json"


def event_data(headers: Mapping[str, str], body: Any) -> Any:
    """Returns the data of a structured CloudEvent, and any other JSON value as it is.

    Raises `RequestError` for an event of an unknown version. `headers` have names in lower case.
    """
    version = headers.get("ce-specversion")
    if _is_binary_event(headers) and version not in ("0.3", "1.0"):
        raise classify.RequestError(f"the CloudEvent's specversion is {version!r}; expected '1.0'")
    return body["data"] if isinstance(body, dict) and set(body) >= _EVENT_KEYS else body


def event_response(headers: Mapping[str, str], answer: dict[str, Any], model: str) -> tuple[dict[str, str], Any]:
    """Returns the headers and the document of an answer, as a CloudEvent of the kind that the request was."""
    attributes = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"io.kserve.inference.{model}",
        "type": "io.kserve.inference.response",
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(),
    }
    if _is_binary_event(headers):
        return {f"ce-{name}": value for name, value in attributes.items()}, answer
    if headers.get("content-type") == _EVENT_JSON:
        return {"content-type": _EVENT_JSON}, {**attributes, "data": answer}
    return {}, answer


def _is_binary_event(headers: Mapping[str, str]) -> bool:
    return all(name in headers for name in _EVENT_HEADERS)


# Vertex AI (https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements)


class VertexContainer(NamedTuple):
    """Port, routes and the model's URI on `gs://`; each is None if Vertex AI does not set it."""

    port: int | None = None
    predict_route: str | None = None
    health_route: str | None = None
    storage_uri: str | None = None


def vertex_container(environment: Mapping[str, str]) -> VertexContainer:
    """Reads the variables `AIP_…`; raises `errors.InputError` for a value that makes no sense."""
    names = ("AIP_HTTP_PORT", "AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE", "AIP_STORAGE_URI")
    port, predict_route, health_route, storage_uri = (environment.get(name) or None for name in names)
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise errors.InputError(f"AIP_HTTP_PORT is {port!r}; expected a port from 1 to 65535")
    for name, route in zip(names[1:3], (predict_route, health_route), strict=True):
        if route is not None and (not route.startswith("/") or set(route) & set("{}?# ")):
            raise errors.InputError(f"{name} is {route!r}; expected a path such as /predict")
    return VertexContainer(int(port) if port else None, predict_route, health_route, storage_uri)
