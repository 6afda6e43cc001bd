import numpy as np
import pytest
import tensorflow as tf

from marco_data.synthetic.render import one_crystal
from marco_model.attribution import class_gradient, overlay, smoothgrad
from marco_model.classifier import export
from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.load import open_classifier
from marco_model.preprocessing import evaluation_batch, shrink
from tests import short_network

SIZE = 12
IMAGE = np.random.default_rng(1).uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=(SIZE, SIZE, 3, 4)).astype(np.float32)


def linear(images):
    return tf.einsum("nhwc,hwck->nk", images, WEIGHTS)


@pytest.mark.parametrize("index", [0, 3])
def test_for_a_linear_score_it_is_the_size_of_the_weights(index):
    result = smoothgrad(class_gradient(linear), IMAGE, index, samples=7, noise=0.5, batch_size=3)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.abs(WEIGHTS[..., index]).sum(-1), rtol=1e-5)


def test_for_a_squared_score_it_is_the_mean_noisy_image():
    def square(images):
        return tf.reduce_sum(images**2, [1, 2, 3])[:, None] / 2

    noise = np.random.default_rng(5).standard_normal((9, SIZE, SIZE, 3), dtype=np.float32)
    expected = np.abs((IMAGE + 0.2 * np.ptp(IMAGE) * noise).mean(0)).sum(-1)
    for batch_size in (1, 4, 100):
        result = smoothgrad(class_gradient(square), IMAGE, 0, samples=9, noise=0.2, batch_size=batch_size, seed=5)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_noise_smooths_a_kink_as_in_its_closed_form():
    # The mean of relu's slope at x + sigma z is the normal distribution function at x / sigma.
    from scipy.stats import norm

    sigma = 0.3 * float(np.ptp(IMAGE))
    result = smoothgrad(
        class_gradient(lambda images: tf.reduce_sum(tf.nn.relu(images), [1, 2, 3])[:, None]),
        IMAGE,
        0,
        samples=4_000,
        noise=0.3,
        batch_size=500,
    )
    np.testing.assert_allclose(result, norm.cdf(IMAGE / sigma).sum(-1), atol=0.07)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"batch_size": 0}, {"noise": -0.1}, {"noise": float("nan")}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="give"):
        smoothgrad(class_gradient(linear), IMAGE, 0, **wrong)


@pytest.mark.slow
def test_a_model_from_disk_has_the_gradients_of_the_network_and_shows_what_it_sees(tmp_path, encoded):
    with short_network.cut():
        network = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1, num_classes=3)
    export(
        network,
        tmp_path / "m",
        classes="abc",
        input_size=151,
        preprocess=lambda image: shrink(image, 160, 50),
        metadata={},
    )
    loaded = open_classifier(tmp_path / "m")
    images = loaded.images(encoded[:2])
    np.testing.assert_allclose(tf.nn.softmax(loaded.logits(images)), loaded.score(encoded[:2]), atol=1e-6)
    shrunk = [shrink(tf.constant(image), 160, 50) for image in encoded[:2]]
    np.testing.assert_allclose(images, evaluation_batch(tf.stack(shrunk), 151), atol=1e-6)
    expected = class_gradient(lambda pixels: network(pixels, training=False))(images, 2)
    result = class_gradient(loaded.logits)(images, 2)
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.long
def test_the_published_graph_is_explained_by_its_weights(published_classifier, encoded, published_scores):
    loaded = published_classifier
    images = loaded.images(encoded[:2])
    np.testing.assert_allclose(tf.nn.softmax(loaded.logits(images)), published_scores[:2], atol=1e-5)
    with pytest.raises(InputError, match="does not decode"):
        loaded.images([b"not an image"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_the_strongest_hundredth_falls_on_the_one_crystal_ten_times_more_often_than_chance(published_classifier, seed):
    picture, covered = one_crystal(seed)
    image = published_classifier.images([tf.io.encode_png(picture).numpy()])[0]
    # The network sees the centre square, 960 pixels wide, at 599.
    places = np.minimum((np.arange(599) + 0.5) * 960 / 599, 959).astype(int)
    crystal = covered[:, 160:1120][np.ix_(places, places)]
    result = smoothgrad(
        class_gradient(published_classifier.logits), image, CLASSES.index("Crystals"), samples=16, batch_size=4
    )
    strongest = result >= np.quantile(result, 0.99)
    factor = crystal[strongest].mean() / crystal.mean()
    print(f"seed {seed}: the crystal is {crystal.mean():.2%} of the image, factor {factor:.1f}")
    assert 0.001 < crystal.mean() < 0.01
    assert factor >= 10


def test_zero_heat_is_grey_and_full_heat_is_the_end_of_the_colour_map():
    image = np.zeros((10, 10, 3), np.float32)
    image[..., 0] = 0.6
    attribution = np.zeros((10, 10), np.float32)
    attribution[2, 3:7] = 5
    drawn = overlay(image, attribution)
    assert drawn.dtype == np.uint8
    assert drawn[9, 9].tolist() == [153, 153, 153]  # (0.2 + 1) / 2 of 255
    assert drawn[2, 3].tolist() == [252, 255, 164]  # inferno's last colour, as matplotlib documents it: #fcffa4


def test_one_outlier_does_not_hide_the_rest():
    attribution = np.ones((30, 30), np.float32)
    attribution[0, 0] = 1e6
    drawn = overlay(np.zeros((30, 30, 3), np.float32), attribution)
    assert (drawn == drawn[0, 0]).all()


def test_zero_attribution_gives_the_grey_image():
    drawn = overlay(np.full((5, 5, 3), -1, np.float32), np.zeros((5, 5), np.float32))
    assert not drawn.any()
