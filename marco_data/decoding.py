"""Does an encoded image decode as training will decode it?"""

from __future__ import annotations

import re

from marco_model.errors import InputError

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
