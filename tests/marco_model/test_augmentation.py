import numpy as np
import pytest
import tensorflow as tf

from marco_model import augmentation


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-0.1, 1.1, (8, 24, 31, 3)).astype(np.float32)


def planes(images):
    return tuple(np.moveaxis(images, -1, 0))


def test_saturation_and_hue_match_tf_image(images):
    factors, turns = np.linspace(0.5, 1.5, 8, dtype=np.float32), np.linspace(0.2, -0.2, 8, dtype=np.float32)
    ours = np.stack(augmentation.adjust_saturation_and_hue(planes(images), factors, turns), axis=-1)
    for image, factor, turn, adjusted in zip(images, factors, turns, ours, strict=True):
        expected = tf.image.adjust_hue(tf.image.adjust_saturation(image, factor), turn)
        np.testing.assert_allclose(adjusted, expected, atol=1e-4)


def test_contrast_matches_tf_image(images):
    factors = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    ours = np.stack(augmentation.adjust_contrast(planes(images), factors), axis=-1)
    for image, factor, adjusted in zip(images, factors, ours, strict=True):
        np.testing.assert_allclose(adjusted, tf.image.adjust_contrast(image, factor), atol=1e-4)


def test_grey_images_keep_their_hue_and_saturation():
    grey = (np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 4, 5),) * 3
    ours = augmentation.adjust_saturation_and_hue(grey, np.float32([1.5]), np.float32([0.2]))
    np.testing.assert_allclose(ours, grey, atol=1e-6)


def test_distort_matches_tf_image_in_slims_order():
    images = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    draws = augmentation.draw(tf.constant([3, 4]), 4)
    for index, distorted in enumerate(augmentation.distort(images, draws)):
        expected = tf.image.convert_image_dtype(images[index], tf.float32)
        expected = tf.image.flip_left_right(expected) if draws.left_right[index] else expected
        expected = tf.image.flip_up_down(expected) if draws.up_down[index] else expected
        expected = tf.image.adjust_brightness(expected, draws.brightness[index])
        expected = tf.image.adjust_saturation(expected, draws.saturation[index])
        expected = tf.image.adjust_hue(expected, draws.hue[index])
        expected = tf.image.adjust_contrast(expected, draws.contrast[index])
        np.testing.assert_allclose(distorted, tf.clip_by_value(expected, 0, 1) * 2 - 1, atol=2e-4)


def test_draws_follow_the_stated_distributions_and_replay():
    draws = augmentation.draw(tf.constant([1, 2]), 10_000)
    again = augmentation.draw(tf.constant([1, 2]), 10_000)
    ranges = {"brightness": (-32 / 255, 32 / 255), "saturation": (0.5, 1.5), "hue": (-0.2, 0.2), "contrast": (0.5, 1.5)}
    for name, (low, high) in ranges.items():
        values = getattr(draws, name).numpy()
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        assert values.std() == pytest.approx((high - low) / np.sqrt(12), rel=0.03)
    for name in ("left_right", "up_down"):
        assert getattr(draws, name).numpy().mean() == pytest.approx(0.5, abs=0.02)
    stacked = np.stack([np.asarray(values, np.float32) for values in draws])
    np.testing.assert_array_equal(stacked, np.stack([np.asarray(values, np.float32) for values in again]))
    assert np.abs(np.corrcoef(stacked) - np.eye(6)).max() < 0.05
