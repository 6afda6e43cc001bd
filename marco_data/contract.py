"""The record contract of the MARCO data set: one `tf.train.Example` an image.

Source: the data set's shards as written by ubccr/terf; see docs/data.md. `institution` and `imager` are ours and are
added by ExampleGen; so are `image/given/label` and `image/given/text`, the class that a record came with, where a label
scheme or an overlay gives it another, and `image/overlay/label`, `image/overlay/rater` and `image/overlay/date`, what
an overlay says of it (docs/relabelling.md).
"""

from __future__ import annotations

import re
from typing import Any

from marco_data.tfrecord import BAD_COMPRESSION, BAD_LENGTH, TRUNCATED_SHARD
from marco_model.errors import InputError

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

    `image_format` is `JPEG` or `PNG`; `height` and `width` are pixels; `source` is a row of `sources.csv`.
    """
    import tensorflow as tf

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
    feature = {
        name: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[value.encode() if isinstance(value, str) else value])
        )
        for name, value in texts.items()
    }
    for name, number in numbers.items():
        feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
    return tf.train.Example(features=tf.train.Features(feature=feature))


def parse_example(data: bytes) -> Any:
    """Returns serialized bytes as a `tf.train.Example`; raises `InputError`, in one line, where they are none."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(data)
    # Some versions of protobuf raise SystemError or UnicodeDecodeError where a feature's name is no UTF-8.
    except (DecodeError, SystemError, ValueError) as error:
        raise InputError(" ".join(str(error.__cause__ or error).split())[:200]) from error


_PLACES_IN_TENSORFLOW = re.compile(r"\{\{.*?\}\}|\[Op:.*?\]")


def decoded_shape(encoded: bytes) -> tuple[int, int, int]:
    """Decodes a JPEG or PNG with training's own decoder; returns height, width and 3.

    Raises `InputError`, its message one line, where the decoder refuses, as it does a truncated image.
    """
    import tensorflow as tf

    from marco_model.preprocessing import decode

    try:
        height, width, channels = decode(encoded).shape
    except tf.errors.OpError as error:
        message = " ".join(_PLACES_IN_TENSORFLOW.sub("", error.message).split())
        raise InputError(f"does not decode: {message[:200]}") from None
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
    BAD_CHECKSUM: "the record's data does not fit its checksum: it was damaged in storage or transfer",
    BAD_LENGTH: "a record's length does not fit its checksum: the rest of the shard cannot be read",
    TRUNCATED_SHARD: "the shard ends inside a record: it was not copied or written whole",
    BAD_COMPRESSION: "the shard's zlib or gzip stream is damaged or ends early: its rest cannot be read",
    NOT_AN_EXAMPLE: "the record is not a tf.train.Example",
    MISSING_FEATURE: "a feature of the record contract is absent or empty",
    MALFORMED_FEATURE: "a feature has another type than the contract's, or more than one value",
    UNKNOWN_LABEL: "image/class/label is none of the four classes",
    LABEL_TEXT_MISMATCH: "image/class/text does not name the class of image/class/label",
    UNMAPPED_LABEL: "the configuration's table of labels has no entry for image/class/raw, or for the record's class",
    UNKNOWN_SOURCE: "image/class/source is not listed in sources.csv",
    UNSUPPORTED_FORMAT: "image/format, colorspace or channels is not that of a JPEG or PNG in RGB",
    BAD_IMAGE_HEADER: "the image's first bytes are not those of a JPEG or PNG",
    FORMAT_MISMATCH: "image/format does not name the format of the encoded image",
    TOO_MANY_PIXELS: "the image's header asks for more pixels than the limit: it was not decoded",
    SIZE_MISMATCH: "image/height and image/width are not the size in the image's header",
    UNDECODABLE_IMAGE: "the image cannot be decoded, for instance because it is truncated",
    TRAIN_AND_EVAL: "the same image is in the evaluation set: the copy in the training set is taken out",
    DUPLICATE_ID: "another record has the same image/id: the first in shard order is kept",
    DUPLICATE_CONTENT: "another record has the same encoded image: the first in shard order is kept",
}
