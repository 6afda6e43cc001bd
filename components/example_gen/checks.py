"""One record of the MARCO contract: is it whole, consistent and decodable?

The checks run from cheap to dear, and an image is decoded only once its header was found sane. The decoder is
training's own, so that whatever training could not read is found here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.settings import BY_HASH, IngestOptions
from marco_data import contract
from marco_data.contract import decoded_shape
from marco_data.image_files import JPEG, PNG, image_header
from marco_data.name_tables import imager_of
from marco_data.overlay import Answer
from marco_data.shards import hashed_split
from marco_model.errors import InputError
from marco_model.labels import CLASSES, LabelScheme


class Overlaid(NamedTuple):
    """What an overlay did to a record: its class without the overlay, and with it, empty where it is left out."""

    image_id: int
    given: str
    became: str


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A sound record. `suffix` appended to `data` adds `institution` and `imager`; `split` is empty if by shard.

    Serialized protocol buffers that are joined are merged when parsed, so that the record itself need not be written
    anew, and its original bytes are still at hand should it prove a duplicate. Only a record to which the label scheme
    gives another class, or that an overlay names, is written anew: it is `relabelled`.
    """

    image_id: int
    digest: bytes
    split: str
    data: bytes
    suffix: bytes
    relabelled: bool
    overlaid: Overlaid | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record for the quarantine; `image_id` is empty where it could not be read."""

    image_id: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A record that the label scheme leaves out on purpose, because of `label`; it is not looked at any further."""

    label: str
    overlaid: Overlaid | None = None


Verdict = Accepted | Rejected | LeftOut


_GIVEN = ((contract.LABEL, contract.GIVEN_LABEL), (contract.LABEL_TEXT, contract.GIVEN_TEXT))
_OVERLAY = (contract.OVERLAY_LABEL, contract.OVERLAY_RATER, contract.OVERLAY_DATE)


def relabelled(data: bytes, label: int, text: str, answer: Answer | None = None) -> bytes:
    """Returns a serialized record with class `label`, named `text`; the ones it had become `image/given/…`.

    `answer` is what an overlay says of it, kept as `image/overlay/…`.
    """
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, given in _GIVEN:
        feature[given].CopyFrom(feature[name])
    feature[contract.LABEL].int64_list.value[:] = [label]
    feature[contract.LABEL_TEXT].bytes_list.value[:] = [text.encode()]
    if answer:
        for name, value in zip(_OVERLAY, (answer.label, answer.rater, answer.date), strict=True):
            feature[name].bytes_list.value[:] = [value.encode()]
    return bytes(example.SerializeToString(deterministic=True))


def as_given(data: bytes) -> bytes:
    """Returns what `relabelled` was given: the same features, though perhaps in another order."""
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, given in _GIVEN:
        feature[name].CopyFrom(feature[given])
        del feature[given]
    for name in _OVERLAY:
        if name in feature:
            del feature[name]
    return bytes(example.SerializeToString(deterministic=True))


@dataclasses.dataclass(frozen=True)
class Names:
    """The tables beside the shards: institutions and raw labels by number; None where the set has none.

    Without `sources` every number is fine and the institution is called `source N`. `overlay`: answers by image id.
    """

    sources: Mapping[int, str] | None = None
    raw_labels: Mapping[int, str] | None = None
    overlay: Mapping[int, Answer] = dataclasses.field(default_factory=dict)


class _Flaw(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def check_record(data: bytes, names: Names, options: IngestOptions) -> Verdict:
    """Checks one serialized `tf.train.Example` and gives it the class of the label scheme, or of the overlay.

    The scheme looks up what the overlay says of an image in the place of the record's own label.
    Never raises for what is in `data`.
    """
    scheme = options.label_scheme
    features: dict[str, Any] = {}
    try:
        features.update(_features(data))
        label = given = _given_label(features, scheme, names.raw_labels)
        answer = names.overlay.get(features[contract.IMAGE_ID])
        if answer:
            label = _Label(answer.label, None, f"{answer.label} of the overlay")
        index = _class_index(scheme, label)
        overlaid = _overlaid(features[contract.IMAGE_ID], scheme, given, index) if answer else None
        if index is None:
            return LeftOut(label.told, overlaid)
        institution = _institution(features[contract.SOURCE], names.sources)
        _check_image(features, options.max_pixels)
    except _Flaw as flaw:
        return Rejected(_image_id(data), flaw.reason, flaw.detail)
    image_id, filename = features[contract.IMAGE_ID], features[contract.FILENAME].decode("utf-8", "replace")
    wanted = index, scheme.classes[index]
    changed = bool(answer) or wanted != (
        features[contract.LABEL],
        features[contract.LABEL_TEXT].decode("utf-8", "replace"),
    )
    return Accepted(
        image_id=image_id,
        digest=hashlib.sha256(features[contract.ENCODED]).digest()[:16],
        split=hashed_split(filename, image_id, options.eval_share) if options.split_by == BY_HASH else "",
        data=relabelled(data, *wanted, answer) if changed else data,
        relabelled=changed,
        suffix=_suffix(institution, imager_of(institution, filename, options.imager_rules)),
        overlaid=overlaid,
    )


def _features(data: bytes) -> dict[str, Any]:
    """Returns the contract's features: bytes and ints."""
    feature = _parse(data).features.feature
    values = {}
    for names, kind in ((contract.BYTES_FEATURES, "bytes_list"), (contract.INT_FEATURES, "int64_list")):
        for name in names:
            if name not in feature:
                raise _Flaw(contract.MISSING_FEATURE, f"{name} is absent")
            held = feature[name]
            found = held.WhichOneof("kind")
            entries = getattr(held, found).value if found else ()
            if not entries:
                raise _Flaw(contract.MISSING_FEATURE, f"{name} is empty")
            if found != kind or len(entries) != 1:
                raise _Flaw(contract.MALFORMED_FEATURE, f"{name} has {len(entries)} in {found}, expected one in {kind}")
            values[name] = entries[0]
    return values


def _parse(data: bytes) -> Any:
    try:
        return contract.parse_example(data)
    except InputError as error:
        raise _Flaw(contract.NOT_AN_EXAMPLE, str(error)) from error


def _image_id(data: bytes) -> str:
    """The record's image id as text, or nothing where there is not exactly one."""
    try:
        feature = _parse(data).features.feature
    except _Flaw:
        return ""
    held = feature[contract.IMAGE_ID].int64_list.value
    return str(held[0]) if len(held) == 1 else ""


class _Label(NamedTuple):
    """A label as a scheme looks it up, and as people are told of it."""

    name: str | None
    number: int | None
    told: str


def _given_label(features: Mapping[str, Any], scheme: LabelScheme, raw_labels: Mapping[int, str] | None) -> _Label:
    """Returns the label that the scheme takes the class from; the record's own class is checked only if it is that."""
    if scheme.source == "raw":
        number = features[contract.LABEL_RAW]
        name = (raw_labels or {}).get(number)
        return _Label(name, number, f"raw label {number}" + (f" ({name})" if name else ""))
    label = features[contract.LABEL]
    if not 0 <= label < len(CLASSES):
        raise _Flaw(contract.UNKNOWN_LABEL, f"label {label}, expected 0 to {len(CLASSES) - 1}")
    text = features[contract.LABEL_TEXT].decode("utf-8", "replace")
    if text.casefold() != CLASSES[label].casefold():
        raise _Flaw(contract.LABEL_TEXT_MISMATCH, f"label {label} is {CLASSES[label]}, the text says {text!r}")
    return _Label(CLASSES[label], None, CLASSES[label])


def _class_index(scheme: LabelScheme, label: _Label) -> int | None:
    try:
        return scheme.index_of(label.name, label.number)
    except KeyError:
        raise _Flaw(contract.UNMAPPED_LABEL, f"{label.told} has no entry") from None


def _overlaid(image_id: int, scheme: LabelScheme, given: _Label, index: int | None) -> Overlaid:
    try:
        before = scheme.index_of(given.name, given.number)
    except KeyError:
        before = None
    was = given.told if before is None else scheme.classes[before]
    return Overlaid(image_id, was, "" if index is None else scheme.classes[index])


def _check_image(features: Mapping[str, Any], max_pixels: int) -> None:
    stated = features[contract.FORMAT].decode("utf-8", "replace").upper().replace("JPG", JPEG)
    colorspace, channels = features[contract.COLORSPACE].decode("utf-8", "replace"), features[contract.CHANNELS]
    if stated not in (JPEG, PNG) or colorspace.upper() != "RGB" or channels != 3:
        raise _Flaw(contract.UNSUPPORTED_FORMAT, f"format {stated!r}, colorspace {colorspace!r}, channels {channels}")
    encoded = features[contract.ENCODED]
    try:
        header = image_header(encoded)
    except ValueError as error:
        raise _Flaw(contract.BAD_IMAGE_HEADER, str(error)) from error
    if header.format != stated:
        raise _Flaw(contract.FORMAT_MISMATCH, f"stated {stated}, found {header.format}")
    size = f"{header.width}x{header.height}"
    if header.width * header.height > max_pixels:
        raise _Flaw(contract.TOO_MANY_PIXELS, f"{size} in the header, at most {max_pixels} pixels allowed")
    if (header.height, header.width) != (features[contract.HEIGHT], features[contract.WIDTH]):
        stated_size = f"{features[contract.WIDTH]}x{features[contract.HEIGHT]}"
        raise _Flaw(contract.SIZE_MISMATCH, f"stated {stated_size}, found {size}")
    try:
        shape = decoded_shape(encoded)
    except InputError as error:
        raise _Flaw(contract.UNDECODABLE_IMAGE, str(error)) from error
    if shape != (header.height, header.width, 3):
        raise _Flaw(contract.SIZE_MISMATCH, f"stated {size}, decodes to {shape}")


def _institution(source: int, sources: Mapping[int, str] | None) -> str:
    if sources is None:
        return f"source {source}"
    if source not in sources:
        raise _Flaw(contract.UNKNOWN_SOURCE, f"source {source} is not in sources.csv")
    return sources[source]


@functools.cache
def _suffix(institution: str, imager: str) -> bytes:
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature[contract.INSTITUTION].bytes_list.value.append(institution.encode())
    example.features.feature[contract.IMAGER].bytes_list.value.append(imager.encode())
    return example.SerializeToString(deterministic=True)
