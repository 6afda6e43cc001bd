import numpy as np
import pytest
import tensorflow as tf

from components.steps.transform import preprocessing_fn
from marco_data.contract import ENCODED, LABEL
from marco_model import preprocessing


@pytest.fixture(scope="module")
def encoded(real_images):
    return [path.read_bytes() for path in real_images.values()]


def transform(encoded, shorter_side):
    inputs = {ENCODED: tf.constant(encoded)[:, None], LABEL: tf.range(len(encoded), dtype=tf.int64)[:, None]}
    return preprocessing_fn(inputs, {"shorter_side": shorter_side, "quality": 95})


def test_large_networks_get_the_bytes_as_they_are(encoded):
    outputs = transform(encoded, 0)
    assert outputs[ENCODED].numpy().tolist() == encoded
    assert outputs[LABEL].numpy().tolist() == list(range(len(encoded)))


def test_small_networks_get_shrunk_jpegs_which_the_served_model_makes_too(encoded):
    outputs = transform(encoded, 240)
    for original, shrunk in zip(encoded, outputs[ENCODED].numpy(), strict=True):
        assert tf.io.extract_jpeg_shape(shrunk).numpy().tolist() == [240, 320, 3]
        assert len(shrunk) < len(original) / 2
        assert shrunk == preprocessing.shrink(tf.constant(original), 240, 95).numpy()


def test_shrinking_keeps_the_picture(encoded):
    """Compared with Pillow's box filter, which also averages areas."""
    import io

    from PIL import Image

    for original, shrunk in zip(encoded, transform(encoded, 240)[ENCODED].numpy(), strict=True):
        reference = np.asarray(Image.open(io.BytesIO(original)).resize((320, 240), Image.Resampling.BOX), np.float32)
        ours = tf.io.decode_jpeg(shrunk).numpy().astype(np.float32)
        assert np.abs(ours - reference).mean() < 4.0
        assert abs((ours - reference).mean()) < 2.0
