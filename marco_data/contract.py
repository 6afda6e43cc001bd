"""The record contract of the MARCO data set: one `tf.train.Example` an image.

Source: the data set's shards as written by ubccr/terf; see docs/data.md. `institution` and `imager` are ours and are
added by ExampleGen; so are `image/given/label` and `image/given/text`, the class that a record came with, where a label
scheme or an overlay gives it another, and `image/overlay/label`, `image/overlay/rater` and `image/overlay/date`, what
an overlay says of it (docs/relabelling.md).
"""

from __future__ import annotations

from typing import Any

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
