"""`preprocessing_fn` of TFX's Transform."""

import tensorflow as tf

from marco_data.contract import ENCODED, LABEL
from marco_model import preprocessing


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, int]) -> dict[str, tf.Tensor]:
    """Returns `image/encoded` (string [batch]) and `image/class/label` (int64 [batch]) for training.

    `custom_config["shorter_side"]` is 0, which leaves the encoded image as it is, or the pixels to which the shorter
    side is shrunk and re-encoded, so that the epochs of a small network don't pay for large images. The exported model
    does the same before scoring (`marco_model.preprocessing.shrink`). Decoded pixels are never written: half a million
    windows of 599×599×3 floats would be 2 TB.
    """
    encoded = tf.reshape(inputs[ENCODED], [-1])
    shorter_side = custom_config["shorter_side"]
    if shorter_side:
        encoded = tf.map_fn(
            lambda image: preprocessing.shrink(image, shorter_side, custom_config["quality"]),
            encoded,
            fn_output_signature=tf.string,
            parallel_iterations=8,
        )
    return {ENCODED: encoded, LABEL: tf.reshape(inputs[LABEL], [-1])}
