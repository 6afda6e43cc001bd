import numpy as np
import pytest

from marco_model.labels import CLASSES
from tests import short_network

SIZE, TEMPERATURE = 151, 1.5


@pytest.fixture(scope="session")
def encoded(real_images):
    return [path.read_bytes() for path in real_images.values()]


@pytest.fixture(scope="session")
def small_model(encoded, tmp_path_factory):
    """An exported small network that separates the six images; its scores of them, float64 [6, 4]."""
    import keras
    import tensorflow as tf
    from scipy.special import softmax

    from marco_model.classifier import export
    from marco_model.inception_v3 import inception_v3
    from marco_model.preprocessing import evaluation_batch

    keras.utils.set_random_seed(7)
    with short_network.cut():
        network = inception_v3(variant="paper", input_size=SIZE, depth_multiplier=0.1)
    logits = network(evaluation_batch(tf.constant(encoded), SIZE), training=False).numpy().astype(np.float64)
    scale = 1.5 / logits.std(axis=0).mean()
    kernel, bias = network.variables[-2:]
    kernel.assign(kernel * scale)
    bias.assign(-logits.mean(axis=0) * scale)
    directory = tmp_path_factory.mktemp("served") / "small"
    export(network, directory, classes=CLASSES, input_size=SIZE, temperature=TEMPERATURE, metadata={"name": "small-7"})
    return directory, softmax((logits - logits.mean(axis=0)) * scale, axis=1)
