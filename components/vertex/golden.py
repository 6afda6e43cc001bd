"""Golden images: the answers expected of a deployed model, the check of them, and where the images come from."""

import base64
import dataclasses
import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import marco_model
from components.vertex.api import Api, Refused, Unsure, messages
from marco_data import image_files
from marco_model import errors, store

MAX_BYTES = 1_100_000
"""The largest image that is sent: Vertex AI takes online requests of up to 1.5 MB, and base64 adds a third."""

_NEVER = 1e-6
"""Probability that a healthy model with traffic has not answered yet, below which it counts as not answering."""

_RIGHTS = (401, 403)
"""Refusals of Vertex AI itself, which say nothing about a model."""

_EXAMPLES = 2_000
"""Records of the evaluation split from which golden images are chosen."""
_SEED = 20180620


class GoldenFailed(errors.ClusterError):
    """A deployed model does not answer as the same model run locally."""

    exit_status = 1


@dataclasses.dataclass(frozen=True)
class Image:
    """A JPEG or PNG and, if known, the class it shows; a name that is not a class is ignored."""

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


def answers(classifier: "marco_model.LoadedClassifier", images: Sequence[Image]) -> list[Golden]:
    """Returns the images with the answers of `classifier`, the model to deploy, run locally.

    Raises `InputError` if it predicts another class than an image is labelled with, or if there are no images.
    """
    if not images:
        raise errors.InputError("there are no golden images; give --golden a folder of them, or endpoint.golden")
    expected = []
    for image in images:
        scores = classifier.score([image.content])[0]
        label = classifier.classes[int(scores.argmax())]
        if image.shows in classifier.classes and image.shows != label:
            raise errors.InputError(
                f"golden image {image.name} shows {image.shows} and the model says {label}; deploy another, or fix "
                "the image's folder"
            )
        expected.append(Golden(image.name, image.content, label, scores))
    return expected


def tries_for(share: int) -> int:
    """Returns how many requests make an answer of a model with `share` % of the traffic practically certain."""
    return 1 if share >= 100 else math.ceil(math.log(_NEVER) / math.log(1 - share / 100))


def check(api: Api, endpoint: str, identity: str, share: int, golden: Sequence[Golden], tolerance: float) -> None:
    """Sends every golden image to an endpoint until the deployed model `identity` has answered.

    Vertex AI cannot address one deployed model of several; the answer names the model that gave it. `share`: its
    percentage of the traffic. Users' requests continue meanwhile. Raises `GoldenFailed` if an answer differs or the
    model does not answer, and `components.vertex.api.Refused` if the account may not ask it.
    """
    for image in golden:
        _compare(image, _answer(api, endpoint, identity, share, image), tolerance)


def _answer(api: Api, endpoint: str, identity: str, share: int, golden: Golden) -> Any:
    """Returns a deployed model's answer to an image: a mapping, if it is as expected."""
    # The wrapper's constructor does not accept values of JSON.
    request = messages().PredictRequest.pb()(endpoint=endpoint)
    request.instances.add().struct_value.update({"image_bytes": {"b64": base64.b64encode(golden.content).decode()}})
    tries, failure, failures = max(tries_for(share), api.pace.tries), "", 0
    for _ in range(tries):
        try:
            answer = api.act("Prediction", "predict", request)
        except (Unsure, Refused) as error:
            status = error.status if isinstance(error, Refused) else None
            if status in _RIGHTS:
                raise
            if status and share >= 100:
                raise GoldenFailed(f"golden image {golden.name} has no answer: {error}") from error
            # With several models it is unknown which one failed; the next try may reach another.
            failure = f"; {failures + 1} failed, the last: {error}"
            if not status:
                api.pace.wait(min(failures, 3))
            failures += 1
        else:
            if answer.deployed_model_id == identity:
                return answer.predictions[0]
    raise GoldenFailed(
        f"golden image {golden.name} has no answer of deployed model {identity}, with {share} % of the traffic, "
        f"in {tries} requests{failure}"
    )


def _compare(golden: Golden, answer: Any, tolerance: float) -> None:
    plain = dict(answer) if isinstance(answer, Mapping) else {"": answer}
    scores = plain.get("scores")
    if scores is None or len(scores) != len(golden.scores):
        raise GoldenFailed(f"golden image {golden.name}: {str(plain)[:200]} has no {len(golden.scores)} scores")
    difference = float(np.max(np.abs(np.array([*scores], np.float64) - golden.scores)))
    if not difference <= tolerance:
        raise GoldenFailed(
            f"golden image {golden.name}: a score is off by {difference:.2g}, more than {tolerance:g}; "
            f"expected {golden.label} with {float(golden.scores.max()):.4f}"
        )
    label = plain.get("class", golden.label)
    if label != golden.label:
        raise GoldenFailed(f"golden image {golden.name}: the class is {label}, expected {golden.label}")


def in_place(place: str) -> list[Image]:
    """Returns the images below a folder or `gs://` URI; a folder named after a class labels the images in it.

    Raises `InputError` if there are none, or if one is too large for an online request.
    """
    if not store.is_object(place):
        return _below(Path(place), place)
    root = f"{place.rstrip('/')}/"
    with tempfile.TemporaryDirectory() as folder:
        for uri in store.objects_below(root):
            if image_files.is_image_below(uri.removeprefix(root)):
                store.download(uri, Path(folder) / uri.removeprefix(root))
        return _below(Path(folder), place)


def _below(folder: Path, place: str) -> list[Image]:
    images = []
    for path in image_files.find_images([folder]).files:
        try:
            content = image_files.encoded_image(path)
        except errors.InputError as error:
            raise errors.InputError(f"golden image {path.name} of {place} {error}") from None
        if len(content) > MAX_BYTES:
            raise errors.InputError(
                f"golden image {path.name} of {place} has {len(content):,} bytes; shrink it to {MAX_BYTES:,}, what an "
                "online request holds"
            )
        name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        images.append(Image(name, content, PurePosixPath(name).parent.name))
    if not images:
        raise errors.InputError(f"there are no golden images in {place}; give a folder of JPEG or PNG files")
    return images


def of_examples(files: list[str], count: int) -> list[Image]:
    """Returns `count` images of the files of ExampleGen's evaluation split, from all classes in turn.

    They carry no label: the model need not be right about each, but has to give the same answer everywhere.
    """
    from marco_model import example_files, training_input

    by_class: dict[int, list[Image]] = {}
    records = training_input.examples(example_files.read_index(files)).take(_EXAMPLES)
    for number, (encoded, label) in enumerate(records.as_numpy_iterator()):
        if len(encoded) <= MAX_BYTES:
            by_class.setdefault(label, []).append(Image(f"eval {number}", encoded))
    queues = [by_class[label] for label in sorted(by_class)]
    in_turn = (image for row in itertools.zip_longest(*queues) for image in row if image)
    return list(itertools.islice(in_turn, count))


def draw(count: int) -> list[Image]:
    """Returns `count` synthetic drops of all classes in turn, the same ones each time."""
    from marco_data import synthetic

    images = []
    for number in range(count):
        kind = marco_model.CLASSES[number % len(marco_model.CLASSES)]
        settings = synthetic.Settings(seed=_SEED, shorter_side=400, classes={kind: 1.0})
        images.append(Image(f"drawn {kind.lower()} {number}", synthetic.draw(number, settings).jpeg()))
    return images
