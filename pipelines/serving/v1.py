"""KServe's V1 protocol, which is TensorFlow Serving's row format and Vertex AI's, as plain functions on JSON.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipelines.serving.classify import Scored
from pipelines.serving.instances import Image, Refused, from_json
from pipelines.serving.limits import Limits, RequestError

SIGNATURE = "serving_default"


def images_of(body: Any, limits: Limits) -> list[Image | Refused]:
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


def parsed(text: bytes) -> Any:
    """Returns what JSON says; raises `RequestError` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {' '.join(str(error).split())[:200]}") from None


def check_count(count: int, limits: Limits) -> None:
    """Raises `RequestError` where there is no image, or more than one request may have."""
    if not 1 <= count <= limits.max_instances:
        raise RequestError(f"{count} images in a request; from 1 to {limits.max_instances} are allowed")


def response(outcomes: Sequence[Scored | Refused], classes: Sequence[str], version: str) -> dict[str, Any]:
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
