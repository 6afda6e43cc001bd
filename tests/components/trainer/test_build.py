import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.settings import Transform
from components.trainer.execution import write_model
from marco_model.labels import CLASSES
from marco_model.load import open_classifier
from marco_model.network import Network, build
from marco_model.preprocessing import evaluation_image, shrink

SMALL = Network(input_size=151, depth_multiplier=0.1, auxiliary=True, batch_norm_momentum=0.9)


@pytest.mark.slow
@pytest.mark.usefixtures("short_network")
def test_the_exported_model_scores_as_the_network_does_on_the_shrunk_image(tmp_path, real_images):
    model = build(dataclasses.replace(SMALL, auxiliary=False), num_classes=4, seed=0)
    write_model(model, SMALL, Transform(shorter_side=170), "tried", str(tmp_path / "model"), CLASSES)
    loaded = open_classifier(tmp_path / "model")
    encoded = next(iter(real_images.values())).read_bytes()
    image = evaluation_image(shrink(tf.constant(encoded), 170, 95), 151)
    expected = tf.nn.softmax(model(image[None], training=False))
    np.testing.assert_allclose(loaded.score([encoded]), expected, atol=1e-5)
    assert loaded.name == "tried"
