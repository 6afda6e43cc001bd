import numpy as np
import pytest
import tensorflow as tf

from marco_model import augmentation


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-0.1, 1.1, (8, 24, 31, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "reference", "low", "high"),
    [
        (augmentation.adjust_saturation, tf.image.adjust_saturation, 0.5, 1.5),
        (augmentation.adjust_hue, tf.image.adjust_hue, -0.2, 0.2),
        (augmentation.adjust_contrast, tf.image.adjust_contrast, 0.5, 1.5),
    ],
)
def test_each_operation_matches_tf_image(images, ours, reference, low, high):
    amounts = np.linspace(low, high, len(images), dtype=np.float32)
    expected = np.stack([reference(image, amount) for image, amount in zip(images, amounts, strict=True)])
    np.testing.assert_allclose(ours(images, amounts), expected, atol=1e-4)


def test_grey_images_keep_their_hue_and_saturation():
    grey = np.repeat(np.linspace(0, 1, 20, dtype=np.float32).reshape(1, 4, 5, 1), 3, axis=-1)
    np.testing.assert_allclose(augmentation.adjust_saturation(grey, np.float32([1.5])), grey, atol=1e-6)
    np.testing.assert_allclose(augmentation.adjust_hue(grey, np.float32([0.2])), grey, atol=1e-6)


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
