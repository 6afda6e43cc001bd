"""What Vertex AI tells a custom container by its environment.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from marco_model.errors import InputError
from marco_scoring.serving.classify import (
    INPUT,
    Image,
    Limits,
    Refused,
    RequestError,
    Scored,
    from_base64,
    from_bytes,
    from_json,
)

SIGNATURE = "serving_default"


def v1_images(body: Any, limits: Limits) -> list[Image | Refused]:
    """Returns the images of `{"instances": […]}`; other keys, such as Vertex AI's `parameters`, are ignored.

    Raises `RequestError` where the request is malformed as a whole.
    """
    if not isinstance(body, dict) or not isinstance(body.get("instances"), list):
        raise RequestError('expected a JSON object with a list of "instances"')
    if (signature := body.get("signature_name", SIGNATURE)) not in ("", None, SIGNATURE):
        raise RequestError(f"signature_name is {str(signature)[:100]!r}; only {SIGNATURE} is served")
    instances = body["instances"]
    check_count(len(instances), limits)
    return [from_json(instance, limits) for instance in instances]


def parse_json(text: bytes) -> Any:
    """Returns what JSON says; raises `RequestError` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {' '.join(str(error).split())[:200]}") from None


def check_count(count: int, limits: Limits) -> None:
    """Raises `RequestError` where there is no image, or more than one request may have."""
    if not 1 <= count <= limits.max_instances:
        raise RequestError(f"{count} images in a request; from 1 to {limits.max_instances} are allowed")


def v1_response(outcomes: Sequence[Scored | Refused], classes: Sequence[str], version: str) -> dict[str, Any]:
    """Returns `{"predictions": […]}`, one object an instance.

    It has what the SavedModel returns for a row, `scores`, `classes`, `class`, `probabilities` and `version`, or
    `error` alone, the reason why there are no scores.
    """
    return {"predictions": [_prediction(outcome, classes, version) for outcome in outcomes]}


def _prediction(outcome: Scored | Refused, classes: Sequence[str], version: str) -> dict[str, Any]:
    if isinstance(outcome, Refused):
        return {"error": outcome.reason}
    return {
        "scores": outcome.scores.tolist(),
        "classes": list(classes),
        "class": classes[int(outcome.scores.argmax())],
        "probabilities": outcome.probabilities.tolist(),
        "version": version,
    }


ERROR = "error"
_SIZE = "binary_data_size"


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that was read: its images, its id, and the names of the outputs wanted, all of them where empty."""

    images: list[Image | Refused]
    id: str | None
    outputs: tuple[str, ...]


def v2_inputs() -> list[dict[str, Any]]:
    """Returns the input's metadata."""
    return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]


def v2_outputs(classes: int) -> list[dict[str, Any]]:
    """Returns the outputs' metadata: those of the SavedModel, and `error`."""
    return [
        {"name": "scores", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "classes", "datatype": "BYTES", "shape": [-1, classes]},
        {"name": "class", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "version", "datatype": "BYTES", "shape": [-1]},
        {"name": ERROR, "datatype": "BYTES", "shape": [-1]},
    ]


def read_v2(body: Any, limits: Limits, tail: bytes = b"") -> Request:
    """Reads an inference request: the JSON `body`, and the binary data that followed it.

    Raises `RequestError` where it is malformed as a whole.
    """
    tensors = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(tensors, list) or len(tensors) != 1 or not isinstance(tensors[0], dict):
        raise RequestError(f'expected a JSON object whose "inputs" is a list of one tensor, {INPUT}')
    tensor = tensors[0]
    if tensor.get("name") != INPUT or tensor.get("datatype") != "BYTES":
        raise RequestError(
            f"the input is {str(tensor.get('name'))[:100]!r} of {str(tensor.get('datatype'))[:100]!r}; "
            f"expected {INPUT!r} of 'BYTES'"
        )
    parameters = tensor.get("parameters")
    size = parameters.get(_SIZE) if isinstance(parameters, dict) else None
    elements = _flat(tensor.get("data")) if size is None else _binary_elements(tail, size)
    _check_shape(tensor.get("shape"), len(elements))
    check_count(len(elements), limits)
    return Request([_image(one, limits) for one in elements], _id(body), _wanted(body))


def read_v2_binary(body: bytes, json_length: str | None, limits: Limits) -> Request:
    """Reads a body of JSON and then binary data; `json_length` is its header `Inference-Header-Content-Length`.

    Without that header all of it is JSON. Raises `RequestError` where it is malformed as a whole.
    """
    length = len(body)
    if json_length is not None:
        if not re.fullmatch("[0-9]{1,12}", json_length) or int(json_length) > length:
            raise RequestError(f"Inference-Header-Content-Length is {json_length[:100]!r} for {length} bytes")
        length = int(json_length)
    return read_v2(parse_json(body[:length]), limits, body[length:])


def v2_response(
    request: Request, outcomes: Sequence[Scored | Refused], classes: Sequence[str], version: str
) -> list[dict[str, Any]]:
    """Returns the output tensors, `data` in row-major order.

    A refused image has its reason in `error`, 0 for scores and probabilities, and empty strings for class and version;
    one that was scored has an empty `error`. `error` is there whether wanted or not, so that nobody takes zeros for
    scores.
    """
    rows = [_row(outcome, classes, version) for outcome in outcomes]
    wanted = {*request.outputs, ERROR} if request.outputs else {output["name"] for output in v2_outputs(len(classes))}
    return [
        {
            **output,
            "shape": [len(rows), *output["shape"][1:]],
            "data": _flat([row[output["name"]] for row in rows]),
        }
        for output in v2_outputs(len(classes))
        if output["name"] in wanted
    ]


def _row(outcome: Scored | Refused, classes: Sequence[str], version: str) -> dict[str, Any]:
    if isinstance(outcome, Scored):
        return {
            "scores": outcome.scores.tolist(),
            "probabilities": outcome.probabilities.tolist(),
            "classes": list(classes),
            "class": classes[int(outcome.scores.argmax())],
            "version": version,
            ERROR: "",
        }
    nothing = [0.0] * len(classes)
    return {
        "scores": nothing,
        "probabilities": nothing,
        "classes": list(classes),
        "class": "",
        "version": "",
        ERROR: outcome.reason,
    }


def _image(element: Any, limits: Limits) -> Image | Refused:
    if isinstance(element, bytes):
        return from_bytes(element, limits)
    return from_base64(element, limits) if isinstance(element, str) else from_json(element, limits)


def _flat(data: Any) -> list[Any]:
    """Flattens a tensor's data, which may be nested as its shape is."""
    if not isinstance(data, list):
        raise RequestError(f'the tensor {INPUT} has no list of "data"')
    return [one for part in data for one in (part if isinstance(part, list) else [part])]


def _binary_elements(tail: bytes, size: Any) -> list[Any]:
    """Splits binary data: each element is its length, 4 bytes little-endian, and its bytes."""
    if not isinstance(size, int) or size != len(tail):
        raise RequestError(f"{_SIZE} is {str(size)[:100]}, and {len(tail)} bytes follow the JSON")
    elements, position = [], 0
    while position < len(tail):
        begin = position + 4
        position = begin + (struct.unpack_from("<I", tail, position)[0] if begin <= len(tail) else 0)
        if position > len(tail):
            raise RequestError("the binary data ends within an element")
        elements.append(tail[begin:position])
    return elements


def _check_shape(shape: Any, count: int) -> None:
    if (
        not isinstance(shape, list)
        or not all(type(side) is int and side >= 0 for side in shape)
        or not 1 <= len(shape) <= 2
        or math.prod(shape) != count
    ):
        raise RequestError(f"the tensor's shape is {str(shape)[:100]} for {count} elements; expected [{count}]")


def _id(body: dict[str, Any]) -> str | None:
    given = body.get("id")
    if given is not None and not isinstance(given, str):
        raise RequestError("id is no string")
    return given


def _wanted(body: dict[str, Any]) -> tuple[str, ...]:
    given = body.get("outputs") or []
    known = {output["name"] for output in v2_outputs(0)}
    if not isinstance(given, list) or not all(isinstance(one, dict) and one.get("name") in known for one in given):
        raise RequestError(f"outputs is {str(given)[:100]}; expected a list of objects with a name of {sorted(known)}")
    return tuple(one["name"] for one in given)


class VertexContainer(NamedTuple):
    """Port, routes and the model's URI on `gs://`; None each where Vertex AI does not tell it."""

    port: int | None = None
    predict_route: str | None = None
    health_route: str | None = None
    storage_uri: str | None = None


def vertex_container(environment: Mapping[str, str]) -> VertexContainer:
    """Reads the variables `AIP_…`; raises `InputError` where one makes no sense."""
    port = environment.get("AIP_HTTP_PORT") or None
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise InputError(f"AIP_HTTP_PORT is {port!r}; expected a port from 1 to 65535")
    routes = []
    for name in ("AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE"):
        route = environment.get(name) or None
        if route is not None and (not route.startswith("/") or set(route) & set("{}?# ")):
            raise InputError(f"{name} is {route!r}; expected a path such as /predict")
        routes.append(route)
    storage_uri = environment.get("AIP_STORAGE_URI") or None
    return VertexContainer(int(port) if port else None, routes[0], routes[1], storage_uri)
