"""The record contract of the MARCO data set: one `tf.train.Example` per image, and the reasons to reject a record.

Source: the data set's shards as ubccr/terf writes them; see docs/data.md. ExampleGen adds features of our own:

- `institution` and `imager`;
- `image/given/label` and `image/given/text`: the class that a record came with, where a label scheme or an overlay
  assigns another;
- `image/overlay/label`, `image/overlay/rater` and `image/overlay/date`: the overlay's answer (docs/relabelling.md).
"""

import re
from collections.abc import Sequence
from typing import Any

from marco_data.tfrecord import BAD_COMPRESSION, BAD_LENGTH, TRUNCATED_SHARD
from marco_model.errors import InputError, one_line

ENCODED = "image/encoded"
FORMAT = "image/format"
COLORSPACE = "image/colorspace"
CHANNELS = "image/channels"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"
IMAGE_ID = "image/id"
LABEL = "image/class/label"
LABEL_TEXT = "image/class/text"
LABEL_RAW = "image/class/raw"
SOURCE = "image/class/source"

BYTES_FEATURES: tuple[str, ...] = (ENCODED, FORMAT, COLORSPACE, FILENAME, LABEL_TEXT)
INT_FEATURES: tuple[str, ...] = (CHANNELS, HEIGHT, WIDTH, IMAGE_ID, LABEL, LABEL_RAW, SOURCE)

INSTITUTION = "institution"
IMAGER = "imager"
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
) -> Any:
    """Returns one image as a `tf.train.Example` in the MARCO contract.

    `image_format` is `JPEG` or `PNG`; `height` and `width` are pixels; `source` is a number of `sources.csv`.
    """
    texts = {ENCODED: encoded, FORMAT: image_format, COLORSPACE: "RGB", FILENAME: filename, LABEL_TEXT: label_text}
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
    """Returns an empty `tf.train.Example`."""
    import tensorflow as tf

    return tf.train.Example()


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


def decoded_shape(encoded: bytes) -> tuple[int, int, int]:
    """Decodes a JPEG or PNG with training's own decoder; returns height, width and 3.

    Raises `InputError`, in one line, if the decoder refuses the image, for instance because it is truncated.
    """
    import tensorflow as tf

    from marco_model.preprocessing import decode

    try:
        height, width, channels = decode(encoded).shape
    except tf.errors.OpError as error:
        # Without the places in TensorFlow's graph that the message names.
        message = re.sub(r"\{\{.*?\}\}|\[Op:.*?\]", "", error.message)
        raise InputError(f"does not decode: {one_line(message)}") from None
    return height, width, channels


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
SIZE_MISMATCH = "size_mismatch"
UNDECODABLE_IMAGE = "undecodable_image"
TRAIN_AND_EVAL = "train_and_eval"
DUPLICATE_ID = "duplicate_id"
DUPLICATE_CONTENT = "duplicate_content"

REASONS: dict[str, str] = {
    BAD_CHECKSUM: "the record's data does not match its checksum: it was damaged in storage or transfer",
    BAD_LENGTH: "a record's length does not match its checksum: the rest of the shard cannot be read",
    TRUNCATED_SHARD: "the shard ends inside a record: it was not copied or written completely",
    BAD_COMPRESSION: "the shard's zlib or gzip stream is damaged or ends early: the rest cannot be read",
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
    SIZE_MISMATCH: "image/height and image/width are not the size in the image's header",
    UNDECODABLE_IMAGE: "the image cannot be decoded, for instance because it is truncated",
    TRAIN_AND_EVAL: "the same image is in the evaluation set: the copy in the training set is removed",
    DUPLICATE_ID: "another record has the same image/id: the first in shard order is kept",
    DUPLICATE_CONTENT: "another record has the same encoded image: the first in shard order is kept",
}
