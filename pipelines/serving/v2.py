"""KServe's V2 protocol, the Open Inference Protocol, as plain functions on JSON and bytes.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol. The one input is `image_bytes`,
BYTES [n]: base64 strings in JSON, or the images themselves by the binary tensor data extension
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html).
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from pipelines.serving.classify import Scored
from pipelines.serving.instances import INPUT, Image, Refused, from_base64, from_bytes, from_json
from pipelines.serving.limits import Limits, RequestError
from pipelines.serving.v1 import check_count, parsed

ERROR = "error"
_SIZE = "binary_data_size"


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that was read: its images, its id, and the names of the outputs wanted, all of them where empty."""

    images: list[Image | Refused]
    id: str | None
    outputs: tuple[str, ...]


def inputs() -> list[dict[str, Any]]:
    """Returns the input's metadata."""
    return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]


def outputs(classes: int) -> list[dict[str, Any]]:
    """Returns the outputs' metadata: those of the SavedModel, and `error`."""
    return [
        {"name": "scores", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "classes", "datatype": "BYTES", "shape": [-1, classes]},
        {"name": "class", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "version", "datatype": "BYTES", "shape": [-1]},
        {"name": ERROR, "datatype": "BYTES", "shape": [-1]},
    ]


def read(body: Any, limits: Limits, tail: bytes = b"") -> Request:
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


def read_binary(body: bytes, json_length: str | None, limits: Limits) -> Request:
    """Reads a body of JSON and then binary data; `json_length` is its header `Inference-Header-Content-Length`.

    Without that header all of it is JSON. Raises `RequestError` where it is malformed as a whole.
    """
    length = len(body)
    if json_length is not None:
        if not re.fullmatch("[0-9]{1,12}", json_length) or int(json_length) > length:
            raise RequestError(f"Inference-Header-Content-Length is {json_length[:100]!r} for {length} bytes")
        length = int(json_length)
    return read(parsed(body[:length]), limits, body[length:])


def response(
    request: Request, outcomes: Sequence[Scored | Refused], classes: Sequence[str], version: str
) -> list[dict[str, Any]]:
    """Returns the output tensors, `data` in row-major order.

    A refused image has its reason in `error`, 0 for scores and probabilities, and empty strings for class and version;
    one that was scored has an empty `error`. `error` is there whether wanted or not, so that nobody takes zeros for
    scores.
    """
    rows = [_row(outcome, classes, version) for outcome in outcomes]
    wanted = {*request.outputs, ERROR} if request.outputs else {output["name"] for output in outputs(len(classes))}
    return [
        {
            **output,
            "shape": [len(rows), *output["shape"][1:]],
            "data": _flat([row[output["name"]] for row in rows]),
        }
        for output in outputs(len(classes))
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
    known = {output["name"] for output in outputs(0)}
    if not isinstance(given, list) or not all(isinstance(one, dict) and one.get("name") in known for one in given):
        raise RequestError(f"outputs is {str(given)[:100]}; expected a list of objects with a name of {sorted(known)}")
    return tuple(one["name"] for one in given)
