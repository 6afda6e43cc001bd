"""Images of a request: limits, checks and scoring; one that does not decode costs only itself."""

import base64
import dataclasses
import string
from pathlib import Path
from typing import Any

import numpy as np

import marco_model
from marco_data import image_files
from marco_model import calibration, errors, model_directory, pictures, pixels

MEBIBYTE = 1 << 20


def _option(default: float, least: int, text: str, most: int | None = None) -> Any:
    """Returns a field of which an option is made; its metadata are the smallest and largest value and the help text."""
    return dataclasses.field(default=default, metadata={"min": least, "max": most, "help": text})


@dataclasses.dataclass(frozen=True)
class Concurrency:
    """How many images are scored at a time, and how many may wait."""

    threads: int = _option(
        0, 0, "Images scored at a time, each by a thread, a lone one by all; 0: one per usable core."
    )
    max_waiting: int = _option(512, 1, "Images that may wait; beyond that a request gets 503.")

    @property
    def slots(self) -> int:
        """How many images are scored at a time."""
        return self.threads or pixels.cores()


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on a request, on each image in it, and on all requests that are not answered yet.

    `max_pixels` is width × height by an image's header; an image with more is not decoded. `max_body_mb` is of a body
    as it arrives. `max_inflight_mb` is at least `max_body_mb`. Beyond `max_connections` a new connection takes the
    place of one that is idle or whose request is not complete.
    """

    max_instances: int = _option(128, 1, "Images in one request.")
    max_pixels: int = _option(pixels.MAX_PIXELS, 1, "Pixels of an image.", pixels.MAX_PIXELS)
    max_image_mb: int = _option(20, 1, "MiB of an encoded image.")
    max_body_mb: int = _option(64, 1, "MiB of a request's body.")
    max_inflight_mb: int = _option(256, 1, "MiB of all bodies not yet answered; beyond that a request gets 503.")
    max_connections: int = _option(1000, 1, "Connections open at a time; idle and half-open ones give way to new ones.")

    @property
    def max_image_bytes(self) -> int:
        """The bound on an encoded image in bytes."""
        return self.max_image_mb * MEBIBYTE


class RequestError(Exception):
    """A request that is refused as a whole: `status` is HTTP's, the message is one line for the sender."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


_PIECE = 1 << 20
"""Characters of base64 that are decoded at a time, since no other thread runs meanwhile; a multiple of four."""

INPUT = "image_bytes"
"""The model's input, as in the SavedModel's signature `serving_default`."""


@dataclasses.dataclass(frozen=True)
class Image:
    """An encoded image, JPEG or PNG by its header, and how many pixels its decoder passes over."""

    encoded: bytes
    work: int


@dataclasses.dataclass(frozen=True)
class Refused:
    """The reason why an image has no scores, in one line."""

    reason: str


Instance = Image | Refused
"""What an instance of a request holds."""


def from_json(instance: Any, limits: Limits) -> Instance:
    """Reads an instance as TensorFlow Serving takes it: `{"image_bytes": {"b64": …}}` or `{"b64": …}`."""
    value = instance
    if isinstance(value, dict) and set(value) == {INPUT}:
        value = value[INPUT]
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        return from_base64(value["b64"], limits)
    return Refused(f'expected {{"{INPUT}": {{"b64": "…"}}}} with base64 in it, got {_describe(instance)}')


def from_base64(text: str, limits: Limits) -> Instance:
    """Reads an image in base64 (RFC 4648, section 4); white space and missing padding are accepted."""
    if len(text) > 2 * limits.max_image_bytes:
        return _too_long(len(text) * 3 // 4, limits)
    try:
        packed = text.encode("ascii").translate(None, string.whitespace.encode())
        packed += b"=" * (-len(packed) % 4)
        pieces = [packed[start : start + _PIECE] for start in range(0, len(packed), _PIECE)]
        if any(b"=" in piece for piece in pieces[:-1]):
            raise ValueError("padding within the text")
        encoded = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except ValueError as error:
        return Refused(f"not base64: {error}")
    return from_bytes(encoded, limits)


def from_bytes(encoded: bytes, limits: Limits) -> Instance:
    """Checks an image's size in bytes, and its format and size in pixels by its header."""
    if not encoded:
        return Refused("empty")
    if len(encoded) > limits.max_image_bytes:
        return _too_long(len(encoded), limits)
    try:
        header = image_files.image_header(encoded)
    except ValueError as error:
        return Refused(f"neither a JPEG nor a PNG: {error}")
    size = header.width * header.height
    if size > limits.max_pixels:
        return Refused(f"{header.width}x{header.height} pixels, at most {limits.max_pixels} allowed")
    return Image(encoded, size * header.scans)


def _too_long(size: int, limits: Limits) -> Refused:
    return Refused(f"an image of {size} bytes, at most {limits.max_image_bytes} allowed")


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(repr, value)))[:100] or 'nothing'}"
    names = {list: "a list", str: "a string", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores and calibrated probabilities of one image, float32 [classes] each, in the order of the model's classes.

    `version`: the name of the model that gave them. `novelty`: how far the image is from the model's training pictures,
    above 1 an unknown one (`marco_model.novelty`); None if the model does not tell.
    """

    scores: np.ndarray
    probabilities: np.ndarray
    version: str
    novelty: float | None = None


Outcome = Scored | Refused


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An encoded image, and the network's input that `preparation` made of it."""

    encoded: bytes
    preparation: pixels.Preparation | None
    network_input: np.ndarray


def classify(classifier: "marco_model.LoadedClassifier", image: bytes | Prepared, bits: int | None = None) -> Outcome:
    """Scores an image, upright, or says why it has no scores. `bits`: see `pictures.upright`."""
    try:
        if isinstance(image, bytes):
            scores, novelties, _ = classifier.described([pictures.upright(image, bits)])
        elif image.preparation == classifier.preparation:
            scores, novelties, _ = classifier.described([image.network_input])
        else:  # The model has changed since.
            return classify(classifier, image.encoded, bits)
    except errors.InputError as error:
        return Refused(str(error))
    (probabilities,) = calibration.calibrate(scores, classifier.temperature)
    return Scored(scores[0], probabilities, classifier.name, float(novelties[0]) if classifier.reference else None)


class Versions:
    """The model in `directory`, or the newest of the numbered versions there: each opened, and warm.

    `threads`, `average`: as `marco_model.open_classifier` takes them.
    """

    def __init__(self, directory: Path, threads: int = 1, average: int = 1) -> None:
        self._directory, self._threads, self._average = directory, threads, average
        self._opened: Path | None = None
        self._classes: tuple[str, ...] = ()

    def newest(self) -> "marco_model.LoadedClassifier | None":
        """Returns the newest version, or None if it was returned the last time.

        Raises `InputError` if there is none, if it cannot be opened, or if its classes are not those of the first.
        """
        folder = model_directory.saved_model_directory(self._directory)
        if folder == self._opened:
            return None
        classifier = marco_model.open_classifier(folder, self._threads, self._average)
        if self._opened and classifier.classes != self._classes:
            raise errors.InputError(f"{folder} has other classes, {classifier.classes}; start the server again")
        warm_up(classifier, self._threads)
        self._opened, self._classes = folder, classifier.classes
        return classifier


def warm_up(classifier: "marco_model.LoadedClassifier", threads: int = 1) -> None:
    """Scores grey images of a usual size, so that no request is slow for being first, and no damage is found only then.

    Each is scored as requests are: one by all threads, then as many as there are `threads`, each by one.
    """
    import simplejpeg

    image = simplejpeg.encode_jpeg(np.full((960, 1280, 3), 128, np.uint8))
    for count in (1, threads):
        classifier.described([image] * count)
