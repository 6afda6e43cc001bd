"""The record contract of the MARCO data set: one `tf.train.Example` per image, and the reasons to reject a record.

Source: the data set's shards as ubccr/terf writes them; see docs/data.md. ExampleGen adds features of our own:

- `institution` and `imager`;
- `image/given/label` and `image/given/text`: the class that a record came with, where a label scheme or an overlay
  assigns another;
- `image/overlay/label`, `image/overlay/rater` and `image/overlay/date`: the overlay's answer (docs/relabelling.md).

`marco data import` adds `image/plate` where it knows the plate: `image/filename` has lost the folders that may name it.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from marco_data.tfrecord import BAD_COMPRESSION, BAD_LENGTH, TRUNCATED_SHARD
from marco_model import pixels
from marco_model.errors import InputError, one_line

ENCODED = "image/encoded"
FORMAT = "image/format"
COLORSPACE = "image/colorspace"
CHANNELS = "image/channels"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"
IMAGE_ID = "image/id"
PLATE = "image/plate"
LABEL = "image/class/label"
LABEL_TEXT = "image/class/text"
LABEL_RAW = "image/class/raw"
SOURCE = "image/class/source"

BYTES_FEATURES: tuple[str, ...] = (ENCODED, FORMAT, COLORSPACE, FILENAME, LABEL_TEXT)
INT_FEATURES: tuple[str, ...] = (CHANNELS, HEIGHT, WIDTH, IMAGE_ID, LABEL, LABEL_RAW, SOURCE)

INSTITUTION = "institution"
IMAGER = "imager"
PLACE_FEATURES: tuple[str, ...] = (FILENAME, PLATE, INSTITUTION)
"""What tells which drop a record shows, and when; all of them texts."""
GIVEN_LABEL = "image/given/label"
GIVEN_TEXT = "image/given/text"
OVERLAY_LABEL = "image/overlay/label"
OVERLAY_RATER = "image/overlay/rater"
OVERLAY_DATE = "image/overlay/date"


def build_example(
    *,
    encoded: bytes,
    image_format: str,
    height: int,
    width: int,
    filename: str,
    image_id: int,
    label: int,
    label_text: str,
    label_raw: int,
    source: int,
    plate: str = "",
) -> Any:
    """Returns one image as a `tf.train.Example` in the MARCO contract.

    `image_format` is `JPEG` or `PNG`; `height` and `width` are pixels; `source` is a number of `sources.csv`.
    `plate` is left out if it is empty.
    """
    texts = {ENCODED: encoded, FORMAT: image_format, COLORSPACE: "RGB", FILENAME: filename, LABEL_TEXT: label_text}
    if plate:
        texts[PLATE] = plate
    numbers = {
        CHANNELS: 3,
        HEIGHT: height,
        WIDTH: width,
        IMAGE_ID: image_id,
        LABEL: label,
        LABEL_RAW: label_raw,
        SOURCE: source,
    }
    example = new_example()
    feature = example.features.feature
    for name, text in texts.items():
        feature[name].bytes_list.value.append(text.encode() if isinstance(text, str) else text)
    for name, number in numbers.items():
        feature[name].int64_list.value.append(number)
    return example


def new_example() -> Any:
    """Returns an empty message of the kind `tf.train.Example`, without TensorFlow."""
    return _example_class()()


@functools.cache
def _example_class() -> Any:
    """Makes the class from its definition (tensorflow/core/example/example.proto and feature.proto)."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="marco/example.proto", package="marco", syntax="proto3")

    def define(parent: Any, name: str, *fields: tuple[str, int, str, bool], oneof: str = "") -> Any:
        """Adds a message with fields, each of a name, a number, a type of protobuf or here, and whether it repeats."""
        message = parent.add(name=name)
        for field_name, number, kind, repeated in fields:
            field = message.field.add(name=field_name, number=number, label=3 if repeated else 1)
            if kind in _PROTOBUF_TYPES:
                field.type = _PROTOBUF_TYPES[kind]
            else:
                field.type, field.type_name = 11, f".marco.{kind}"
            if oneof:
                field.oneof_index = 0
        if oneof:
            message.oneof_decl.add(name=oneof)
        return message

    kinds = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
    for kind, value in kinds.items():
        define(file.message_type, kind.title().replace("_", ""), ("value", 1, value, True))
    lists = [(kind, number, kind.title().replace("_", ""), False) for number, kind in enumerate(kinds, 1)]
    define(file.message_type, "Feature", *lists, oneof="kind")
    features = define(file.message_type, "Features", ("feature", 1, "Features.FeatureEntry", True))
    entry = define(features.nested_type, "FeatureEntry", ("key", 1, "string", False), ("value", 2, "Feature", False))
    entry.options.map_entry = True
    define(file.message_type, "Example", ("features", 1, "Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("marco.Example")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


_PROTOBUF_TYPES = {"float": 2, "int64": 3, "string": 9, "bytes": 12}


def parse_example(data: bytes) -> Any:
    """Returns serialized bytes as a `tf.train.Example`; raises `InputError`, in one line, if they are not one."""
    from google.protobuf.message import DecodeError

    example = new_example()
    try:
        example.ParseFromString(data)
    # Some versions of protobuf raise SystemError or UnicodeDecodeError if a feature's name is not UTF-8.
    except (DecodeError, SystemError, ValueError) as error:
        raise InputError(one_line(error.__cause__ or error)) from error
    return example


def feature_values(feature: Any) -> tuple[str, Sequence[Any]]:
    """Returns a feature's kind (`bytes_list`, `int64_list`, `float_list` or empty) and its values."""
    kind = feature.WhichOneof("kind")
    return (kind, getattr(feature, kind).value) if kind else ("", ())


def plate_of(features: Mapping[str, Any]) -> str:
    """Returns the plate that a record's features name, by the name of each; empty if they name none."""
    values = feature_values(features[PLATE])[1] if PLATE in features else ()
    return values[0].decode("utf-8", "replace") if len(values) == 1 and isinstance(values[0], bytes) else ""


def with_plate(data: bytes, plate: str) -> bytes:
    """Returns a serialized record that states `plate`."""
    example = parse_example(data)
    example.features.feature[PLATE].bytes_list.value[:] = [plate.encode()]
    return bytes(example.SerializeToString(deterministic=True))


def check_decodes(encoded: bytes) -> None:
    """Raises `InputError`, in one line, for a JPEG or PNG that training's decoder refuses or would fill with grey."""
    import tensorflow as tf

    pixels.check(encoded)
    is_jpeg = encoded.startswith(b"\xff\xd8\xff")
    try:
        tf.io.decode_jpeg(encoded, channels=3, ratio=8 if is_jpeg else 1)
    except tf.errors.OpError as error:
        # Without the places in TensorFlow's graph that the message names.
        message = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", error.message)
        raise InputError(f"does not decode: {one_line(message)}") from None


BAD_CHECKSUM = "bad_checksum"
NOT_AN_EXAMPLE = "not_an_example"
MISSING_FEATURE = "missing_feature"
MALFORMED_FEATURE = "malformed_feature"
UNKNOWN_LABEL = "unknown_label"
LABEL_TEXT_MISMATCH = "label_text_mismatch"
UNMAPPED_LABEL = "unmapped_label"
UNKNOWN_SOURCE = "unknown_source"
UNSUPPORTED_FORMAT = "unsupported_format"
BAD_IMAGE_HEADER = "bad_image_header"
FORMAT_MISMATCH = "format_mismatch"
TOO_MANY_PIXELS = "too_many_pixels"
TOO_MANY_SCANS = "too_many_scans"
SIZE_MISMATCH = "size_mismatch"
UNDECODABLE_IMAGE = "undecodable_image"
TRAIN_AND_EVAL = "train_and_eval"
DUPLICATE_ID = "duplicate_id"
ID_OF_OTHER_IMAGE = "id_of_other_image"
DUPLICATE_CONTENT = "duplicate_content"

REASONS: dict[str, str] = {
    BAD_CHECKSUM: "the record's data does not match its checksum: it was damaged in storage or transfer",
    BAD_LENGTH: "a record's length does not match its checksum: the rest of the shard cannot be read",
    TRUNCATED_SHARD: "the shard ends inside a record: it was not copied or written completely",
    BAD_COMPRESSION: "the shard's zlib or gzip stream is damaged, ends early or inflates to more than 100 times its "
    "size: the rest cannot be read",
    NOT_AN_EXAMPLE: "the record is not a tf.train.Example",
    MISSING_FEATURE: "a feature of the record contract is absent or empty",
    MALFORMED_FEATURE: "a feature has another type than the contract's, or more than one value",
    UNKNOWN_LABEL: "image/class/label is not one of the four classes",
    LABEL_TEXT_MISMATCH: "image/class/text does not name the class of image/class/label",
    UNMAPPED_LABEL: "the label scheme has no entry for image/class/raw, or for the record's class",
    UNKNOWN_SOURCE: "image/class/source is not listed in sources.csv",
    UNSUPPORTED_FORMAT: "image/format, colorspace or channels is not that of a JPEG or PNG in RGB",
    BAD_IMAGE_HEADER: "the image's first bytes are not those of a JPEG or PNG",
    FORMAT_MISMATCH: "image/format does not name the format of the encoded image",
    TOO_MANY_PIXELS: "the image's header states more pixels than the limit: it was not decoded",
    TOO_MANY_SCANS: "the JPEG has so many scans that it would take too long to decode: it was not decoded",
    SIZE_MISMATCH: "image/height and image/width are not the size in the image's header",
    UNDECODABLE_IMAGE: "the image cannot be decoded, because it is damaged or truncated",
    TRAIN_AND_EVAL: "the same image is in the evaluation split: the copy in the other split is removed",
    DUPLICATE_ID: "another record has the same image/id and image: the first in shard order is kept",
    ID_OF_OTHER_IMAGE: "another image has the same image/id, the first in shard order is kept: give each its own",
    DUPLICATE_CONTENT: "another record has the same encoded image: the first in shard order is kept",
}
