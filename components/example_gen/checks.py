"""Checks of one record of the MARCO contract: is it complete, consistent and decodable? And its class.

The checks run from cheap to expensive, and an image is decoded only if its header is plausible, by training's own
decoder too, so that every image that training could not read is found here. `check_record` also assigns the class of
the label scheme or of the overlay.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.settings import BY_HASH, THREE, IngestOptions
from marco_data import contract, image_files, name_tables, overlay as overlays, place_reader, shards
from marco_model import errors, labels, pixels

Answers = Mapping[int, overlays.Answer]
"""An overlay's answers by image id."""


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of a shard: institutions and raw labels by number, None if it has none, and the overlay.

    Without `sources` every number is valid and the institution is called `source N`.
    `names`: where the images of records without a plate lie, if not as their names say.
    """

    sources: Mapping[int, str] | None = None
    raw_labels: Mapping[int, str] | None = None
    overlay: Answers = dataclasses.field(default_factory=dict)
    names: place_reader.NamedPlaces | None = None


OverlayEffect = tuple[int, str, str]
"""An overlay's effect on an image, by its id: the class without it, and with it (empty if the record is left out)."""


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A sound record. `suffix` appended to `data` adds `institution` and `imager`; `split` is the drawn one.

    Concatenated protocol buffers are merged when parsed. So the record keeps its bytes, in case it turns out to be a
    duplicate. Only a record whose class the label scheme changes, or that an overlay names, is serialized again: it is
    `relabelled`.
    """

    image_id: int
    digest: bytes
    split: str
    data: bytes
    suffix: bytes
    relabelled: bool
    overlay_effect: OverlayEffect | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record for the quarantine; `image_id` is empty if it could not be read."""

    image_id: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A record that the label scheme leaves out on purpose, because of `label`; it is not checked further."""

    label: str
    overlay_effect: OverlayEffect | None = None


Verdict = Accepted | Rejected | LeftOut

_GIVEN = ((contract.LABEL, contract.GIVEN_LABEL), (contract.LABEL_TEXT, contract.GIVEN_TEXT))
_OVERLAY = (contract.OVERLAY_LABEL, contract.OVERLAY_RATER, contract.OVERLAY_DATE)


def relabel(data: bytes, label: int, text: str, answer: overlays.Answer | None = None) -> bytes:
    """Returns a serialized record with class `label`, named `text`; the original ones become `image/given/…`.

    `answer` is the overlay's answer for it, kept as `image/overlay/…`.
    """
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, original in _GIVEN:
        feature[original].CopyFrom(feature[name])
    feature[contract.LABEL].int64_list.value[:] = [label]
    feature[contract.LABEL_TEXT].bytes_list.value[:] = [text.encode()]
    if answer:
        for name, value in zip(_OVERLAY, (answer.label, answer.rater, answer.date), strict=True):
            feature[name].bytes_list.value[:] = [value.encode()]
    return bytes(example.SerializeToString(deterministic=True))


def restore_label(data: bytes) -> bytes:
    """Reverses `relabel`: returns the same features as before, though perhaps in another order."""
    example = contract.parse_example(data)
    feature = example.features.feature
    for name, original in _GIVEN:
        feature[name].CopyFrom(feature[original])
        del feature[original]
    for name in _OVERLAY:
        if name in feature:
            del feature[name]
    return bytes(example.SerializeToString(deterministic=True))


class _Flaw(Exception):
    """Has two arguments, the reason and the detail."""


def check_record(data: bytes, tables: Tables, options: IngestOptions) -> Verdict:
    """Checks one serialized `tf.train.Example` and assigns the class of the label scheme, or of the overlay.

    For an image of the overlay, the scheme looks up the answer instead of the record's own label. Never raises for any
    content of `data`.
    """
    scheme = options.label_scheme
    features: dict[str, Any] = {}
    try:
        features.update(_features(data))
        image_id, filename = features[contract.IMAGE_ID], _text(features, contract.FILENAME)
        label = own_label = _own_label(features, scheme, tables.raw_labels)
        answer = tables.overlay.get(image_id)
        if answer:
            label = _Label(answer.label, None, f"{answer.label} of the overlay")
        index = _class_index(scheme, label)
        effect = _overlay_effect(image_id, scheme, own_label, index) if answer else None
        if index is None:
            return LeftOut(label.title, effect)
        institution = _institution(features[contract.SOURCE], tables.sources)
        _check_image(features, options.max_pixels)
    except _Flaw as flaw:
        return Rejected(_image_id(data), *flaw.args)
    plate = features[contract.PLATE]
    if tables.names and not plate:
        plate = tables.names.of_record(filename).plate
        data = contract.with_plate(data, plate) if plate else data
    new_label = index, scheme.classes[index]
    changed = bool(answer) or new_label != (features[contract.LABEL], _text(features, contract.LABEL_TEXT))
    return Accepted(
        image_id=image_id,
        digest=hashlib.sha256(features[contract.ENCODED]).digest()[:16],
        split=shards.hashed_split(
            "" if tables.names else filename,  # An image that `names` does not name has no plate.
            image_id,
            eval_share=options.eval_share if options.split_by == BY_HASH else 0.0,
            validation_share=options.validation_share if options.splits == THREE else 0.0,
            plate=plate,
        ),
        data=relabel(data, *new_label, answer) if changed else data,
        relabelled=changed,
        suffix=_suffix(institution, name_tables.imager_of(institution, filename, options.imager_rules)),
        overlay_effect=effect,
    )


def _features(data: bytes) -> dict[str, Any]:
    """Returns the contract's features, bytes and ints, and the plate, a text that may be empty."""
    feature = _parse(data).features.feature
    values = {}
    for names, kind in ((contract.BYTES_FEATURES, "bytes_list"), (contract.INT_FEATURES, "int64_list")):
        for name in names:
            if name not in feature:
                raise _Flaw(contract.MISSING_FEATURE, f"{name} is absent")
            actual, entries = contract.feature_values(feature[name])
            if not entries:
                raise _Flaw(contract.MISSING_FEATURE, f"{name} is empty")
            if actual != kind or len(entries) != 1:
                detail = f"{name} has {len(entries)} in {actual}, expected one in {kind}"
                raise _Flaw(contract.MALFORMED_FEATURE, detail)
            values[name] = entries[0]
    kind, entries = contract.feature_values(feature[contract.PLATE]) if contract.PLATE in feature else ("", ())
    if kind and (kind != "bytes_list" or len(entries) != 1):
        detail = f"{contract.PLATE} has {len(entries)} in {kind}, expected one in bytes_list"
        raise _Flaw(contract.MALFORMED_FEATURE, detail)
    return {**values, contract.PLATE: contract.plate_of(feature)}


def _text(features: Mapping[str, Any], name: str) -> str:
    return str(features[name].decode("utf-8", "replace"))


def _parse(data: bytes) -> Any:
    try:
        return contract.parse_example(data)
    except errors.InputError as error:
        raise _Flaw(contract.NOT_AN_EXAMPLE, str(error)) from error


def _image_id(data: bytes) -> str:
    """Returns the record's image id as text, empty unless there is exactly one."""
    try:
        feature = _parse(data).features.feature
    except _Flaw:
        return ""
    numbers = feature[contract.IMAGE_ID].int64_list.value
    return str(numbers[0]) if len(numbers) == 1 else ""


class _Label(NamedTuple):
    """A label as a scheme looks it up; `title` is for messages."""

    name: str | None
    number: int | None
    title: str


def _own_label(features: Mapping[str, Any], scheme: labels.LabelScheme, raw_labels: Mapping[int, str] | None) -> _Label:
    """Returns the label that the scheme looks up: the raw label, or the record's class, which is checked only then."""
    if scheme.source == "raw":
        number = features[contract.LABEL_RAW]
        name = (raw_labels or {}).get(number)
        return _Label(name, number, f"raw label {number}" + (f" ({name})" if name else ""))
    label = features[contract.LABEL]
    if not 0 <= label < len(labels.CLASSES):
        raise _Flaw(contract.UNKNOWN_LABEL, f"label {label}, expected 0 to {len(labels.CLASSES) - 1}")
    text = _text(features, contract.LABEL_TEXT)
    if text.casefold() != labels.CLASSES[label].casefold():
        raise _Flaw(contract.LABEL_TEXT_MISMATCH, f"label {label} is {labels.CLASSES[label]}, the text says {text!r}")
    return _Label(labels.CLASSES[label], None, labels.CLASSES[label])


def _class_index(scheme: labels.LabelScheme, label: _Label) -> int | None:
    try:
        return scheme.index_of(label.name, label.number)
    except KeyError:
        raise _Flaw(contract.UNMAPPED_LABEL, f"{label.title} has no entry") from None


def _overlay_effect(image_id: int, scheme: labels.LabelScheme, own_label: _Label, index: int | None) -> OverlayEffect:
    try:
        before = scheme.index_of(own_label.name, own_label.number)
    except KeyError:
        before = None
    old_class = own_label.title if before is None else scheme.classes[before]
    return image_id, old_class, "" if index is None else scheme.classes[index]


def _check_image(features: Mapping[str, Any], max_pixels: int) -> None:
    stated = _text(features, contract.FORMAT).upper().replace("JPG", image_files.JPEG)
    colorspace, channels = _text(features, contract.COLORSPACE), features[contract.CHANNELS]
    if stated not in (image_files.JPEG, image_files.PNG) or colorspace.upper() != "RGB" or channels != 3:
        raise _Flaw(contract.UNSUPPORTED_FORMAT, f"format {stated!r}, colorspace {colorspace!r}, channels {channels}")
    encoded = features[contract.ENCODED]
    try:
        header = image_files.image_header(encoded)
    except pixels.TooManyScans as error:
        raise _Flaw(contract.TOO_MANY_SCANS, str(error)) from error
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
        contract.check_decodes(encoded)
    except errors.InputError as error:
        raise _Flaw(contract.UNDECODABLE_IMAGE, str(error)) from error


def _institution(source: int, sources: Mapping[int, str] | None) -> str:
    if sources is None:
        return f"source {source}"
    if source not in sources:
        raise _Flaw(contract.UNKNOWN_SOURCE, f"source {source} is not in sources.csv")
    return sources[source]


@functools.cache
def _suffix(institution: str, imager: str) -> bytes:
    example = contract.new_example()
    example.features.feature[contract.INSTITUTION].bytes_list.value.append(institution.encode())
    example.features.feature[contract.IMAGER].bytes_list.value.append(imager.encode())
    return bytes(example.SerializeToString(deterministic=True))
