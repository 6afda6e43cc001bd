"""Golden images: what a deployed model has to answer, and whether it does."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.vertex.api import Api, Refused, Unsure
from marco_model.errors import ClusterError, InputError

if TYPE_CHECKING:
    import numpy as np

    from marco_model.load import LoadedClassifier

MAX_BYTES = 1_100_000
"""The largest image that is sent: Vertex AI takes online requests of up to 1.5 MB, and base64 adds a third."""

_NEVER = 1e-6
"""How unlikely it has to be that a model with traffic has not answered yet, before it is said not to answer."""


_RIGHTS = (401, 403)
"""Refusals of Vertex AI itself, which say nothing about a model."""


class GoldenFailed(ClusterError):
    """A deployed model does not answer as the same model does here."""


@dataclasses.dataclass(frozen=True)
class Image:
    """A JPEG or PNG and, where it is known, the class that it shows; a name that is no class says nothing."""

    name: str
    content: bytes
    shows: str = ""


@dataclasses.dataclass(frozen=True)
class Golden:
    """An image and the answer to it: `label`, the class with the highest score, and `scores`, float32 [classes]."""

    name: str
    content: bytes
    label: str
    scores: np.ndarray


def answers(classifier: LoadedClassifier, images: Sequence[Image]) -> list[Golden]:
    """Returns the images with what `classifier`, the model that is to be deployed, answers to them here.

    Raises `InputError` where it does not see in an image what that is said to show, or where there are none.
    """
    if not images:
        raise InputError("there are no golden images; give --golden a folder of them, or endpoint.golden")
    found = []
    for image in images:
        scores = classifier.score([image.content])[0]
        label = classifier.classes[int(scores.argmax())]
        if image.shows in classifier.classes and image.shows != label:
            raise InputError(
                f"golden image {image.name} shows {image.shows} and the model says {label}; deploy another, or mend "
                "the image's folder"
            )
        found.append(Golden(image.name, image.content, label, scores))
    return found


def tries_for(share: int) -> int:
    """Returns how often an endpoint has to be asked so that a model with `share` % of the traffic surely answers."""
    return 1 if share >= 100 else math.ceil(math.log(_NEVER) / math.log(1 - share / 100))


def check(api: Api, endpoint: str, identity: str, share: int, golden: Sequence[Golden], tolerance: float) -> None:
    """Asks an endpoint for every golden image until the deployed model `identity` has answered.

    Vertex AI has no way to ask one deployed model of several; who answered is in the answer. `share`: its per cent of
    the traffic. Users' requests go on meanwhile.

    Raises `GoldenFailed` where an answer differs, or where the model does not answer, and
    `components.vertex.api.Refused` where it may not be asked.
    """
    for one in golden:
        _compare(one, _answer(api, endpoint, identity, share, one), tolerance)


def _answer(api: Api, endpoint: str, identity: str, share: int, golden: Golden) -> Any:
    """Returns what a deployed model answers to an image, as Python has it."""
    request, tries, said, failed = _request(endpoint, golden.content), max(tries_for(share), api.pace.tries), "", 0
    for _ in range(tries):
        try:
            answer = api.act("Prediction", "predict", request)
        except (Unsure, Refused) as error:
            status = error.status if isinstance(error, Refused) else None
            if status in _RIGHTS:
                raise
            if status and share >= 100:
                raise GoldenFailed(f"golden image {golden.name} has no answer: {error}") from error
            # Of several models, nobody says whose failure it is; the next try may meet another.
            said = f"; {failed + 1} failed, the last: {error}"
            if not status:
                api.pace.wait(min(failed, 3))
            failed += 1
        else:
            if answer.deployed_model_id == identity:
                return _plain(answer.predictions[0])
    raise GoldenFailed(
        f"golden image {golden.name} has no answer of deployed model {identity}, with {share} % of the traffic, "
        f"in {tries} requests{said}"
    )


def _request(endpoint: str, content: bytes) -> Any:
    from google.cloud.aiplatform_v1.types import PredictRequest
    from google.protobuf import json_format, struct_pb2

    instance = {"image_bytes": {"b64": base64.b64encode(content).decode()}}
    request = PredictRequest(endpoint=endpoint)
    # The message's own constructor takes no such values.
    request.instances.append(json_format.ParseDict(instance, struct_pb2.Value()))
    return request


def _compare(golden: Golden, told: Any, tolerance: float) -> None:
    import numpy as np

    scores = told.get("scores") if isinstance(told, dict) else None
    if scores is None or len(scores) != len(golden.scores):
        raise GoldenFailed(f"golden image {golden.name}: {str(told)[:200]} has no {len(golden.scores)} scores")
    difference = float(np.max(np.abs(np.asarray(scores, np.float64) - golden.scores)))
    if not difference <= tolerance:
        raise GoldenFailed(
            f"golden image {golden.name}: a score is off by {difference:.2g}, more than {tolerance:g}; "
            f"expected {golden.label} with {float(golden.scores.max()):.4f}"
        )
    label = told.get("class", golden.label)
    if label != golden.label:
        raise GoldenFailed(f"golden image {golden.name}: the class is {label}, expected {golden.label}")


def _plain(value: Any) -> Any:
    """Returns a protobuf value as Python has it."""
    if hasattr(value, "items"):
        return {name: _plain(one) for name, one in value.items()}
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
