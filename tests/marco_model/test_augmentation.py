import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from marco_model import augmentation, training_step
from tests.marco_model import small_problem

SLIMS_ORDERS = (
    ("brightness", "saturation", "hue", "contrast"),
    ("saturation", "brightness", "contrast", "hue"),
    ("contrast", "hue", "brightness", "saturation"),
    ("hue", "saturation", "contrast", "brightness"),
)
"""`distort_color` of TF-Slim's inception_preprocessing.py with `fast_mode=False`."""
OPERATIONS = {
    "brightness": tf.image.adjust_brightness,
    "saturation": tf.image.adjust_saturation,
    "hue": tf.image.adjust_hue,
    "contrast": tf.image.adjust_contrast,
}


def reference(image, draws, index):
    """One uint8 image distorted by `tf.image`, operation by operation."""
    image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.image.flip_left_right(image) if draws.left_right[index] else image
    image = tf.image.flip_up_down(image) if draws.up_down[index] else image
    for name in SLIMS_ORDERS[int(draws.order[index])]:
        image = OPERATIONS[name](image, float(getattr(draws, name)[index]))
    return tf.clip_by_value(image, 0, 1) * 2 - 1


def draws_of(brightness, saturation, hue, contrast, order, left_right=(False,), up_down=(False,)):
    """Draws from sequences, the short ones repeated."""
    count = max(len(brightness), len(order))
    values = {"brightness": brightness, "saturation": saturation, "hue": hue, "contrast": contrast, "order": order}
    values |= {"left_right": left_right, "up_down": up_down}
    drawn = augmentation.draw(tf.constant([0, 0]), count)
    return drawn._replace(
        **{name: tf.cast(np.resize(value, count), getattr(drawn, name).dtype) for name, value in values.items()}
    )


@pytest.fixture(scope="module")
def images():
    """Values as they occur between operations, also outside [0, 1], some images without any positive one."""
    images = np.random.default_rng(0).uniform(-0.6, 1.4, (8, 24, 31, 3)).astype(np.float32)
    images[-1] -= 1.4
    return images


def planes(images):
    return tuple(np.moveaxis(images, -1, 0))


YES, NO = np.ones(8, bool), np.zeros(8, bool)
FACTORS, TURNS = np.linspace(0.5, 1.5, 8, dtype=np.float32), np.linspace(0.2, -0.2, 8, dtype=np.float32)
SHIFTS = np.linspace(-32 / 255, 32 / 255, 8, dtype=np.float32)
ONES, ZEROS = np.ones(8, np.float32), np.zeros(8, np.float32)


@pytest.mark.parametrize(
    ("adjust", "parameters", "names"),
    [
        (augmentation.adjust_brightness_and_contrast, (SHIFTS, ONES), [("brightness", SHIFTS)]),
        (augmentation.adjust_brightness_and_contrast, (ZEROS, FACTORS), [("contrast", FACTORS)]),
        (
            augmentation.adjust_brightness_and_contrast,
            (SHIFTS, FACTORS),
            [("brightness", SHIFTS), ("contrast", FACTORS)],
        ),
        (augmentation.adjust_saturation_and_hue, (YES, FACTORS, ZEROS), [("saturation", FACTORS)]),
        (augmentation.adjust_saturation_and_hue, (YES, ONES, ZEROS), [("saturation", ONES)]),
        (augmentation.adjust_saturation_and_hue, (NO, FACTORS, TURNS), [("hue", TURNS)]),
        (augmentation.adjust_saturation_and_hue, (NO, FACTORS, ZEROS), []),
        (augmentation.adjust_saturation_and_hue, (YES, FACTORS, TURNS), [("saturation", FACTORS), ("hue", TURNS)]),
    ],
    ids=lambda value: "+".join(name for name, _ in value) or "nothing" if isinstance(value, list) else "",
)
def test_each_operation_matches_tf_image_in_either_order(images, adjust, parameters, names):
    ours = np.stack(adjust(planes(images), *parameters), axis=-1)
    for order in (names, names[::-1]):
        for index, adjusted in enumerate(ours):
            expected = images[index]
            for name, values in order:
                expected = OPERATIONS[name](expected, float(values[index]))
            np.testing.assert_allclose(adjusted, expected, atol=1e-4)


@pytest.mark.parametrize("order", range(4))
def test_each_of_slims_orders_matches_tf_image(order):
    images = np.random.default_rng(order).integers(0, 256, (8, 40, 33, 3), dtype=np.uint8)
    images[:2] = images[:2] // 16 + 235
    images[2:4] = images[2:4] // 16
    drawn = augmentation.draw(tf.constant([3, order]), 8)._replace(order=tf.fill([8], order))
    ours = augmentation.distort(images, drawn)
    # On the scale of [0, 1], on which the operations work.
    expected = np.stack([reference(image, drawn, index) for index, image in enumerate(images)])
    np.testing.assert_allclose(ours / 2, expected / 2, atol=1e-4)
    assert ours.dtype == tf.float32


def test_the_orders_differ_and_an_images_neighbours_do_not_matter():
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    together = augmentation.distort(np.repeat(image, 4, 0), draws_of([0.1] * 4, [1.4], [0.15], [1.4], range(4))).numpy()
    for order in range(4):
        alone = augmentation.distort(image, draws_of([0.1], [1.4], [0.15], [1.4], [order]))
        np.testing.assert_allclose(together[order], alone[0], atol=1e-6)
        for other in range(order):
            assert np.abs(together[order] - together[other]).max() > 0.01


PIXELS = st.one_of(
    st.integers(0, 255).map(lambda grey: (grey, grey, grey)),
    st.sampled_from([(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (1, 0, 0)]),
    st.tuples(*[st.integers(0, 255)] * 3),
)
CONTENT = st.one_of(
    PIXELS.map(lambda pixel: np.broadcast_to(np.uint8(pixel), (3, 4, 3)).copy()),
    st.lists(PIXELS, min_size=12, max_size=12).map(lambda pixels: np.reshape(pixels, (3, 4, 3)).astype(np.uint8)),
    hnp.arrays(np.uint8, (3, 4, 3)),
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(
    content=CONTENT,
    brightness=st.floats(-32 / 255, 32 / 255),
    saturation=st.floats(0.5, 1.5),
    hue=st.floats(-0.2, 0.2),
    contrast=st.floats(0.5, 1.5),
    flips=st.tuples(st.booleans(), st.booleans()),
)
def test_any_content_matches_tf_image_in_all_orders(content, brightness, saturation, hue, contrast, flips):
    drawn = draws_of([brightness], [saturation], [hue], [contrast], range(4), [flips[0]], [flips[1]])
    ours = augmentation.distort(np.stack([content] * 4), drawn).numpy()
    assert np.isfinite(ours).all()
    assert np.abs(ours).max() <= 1
    for order in range(4):
        np.testing.assert_allclose(ours[order] / 2, reference(content, drawn, order) / 2, atol=1e-4)


def test_neutral_draws_change_nothing():
    images = np.random.default_rng(2).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    ours = augmentation.distort(images, draws_of([0.0], [1.0], [0.0], [1.0], range(4)))
    np.testing.assert_allclose(ours, images / 127.5 - 1, atol=1e-5)


def test_it_compiles_under_xla_to_the_same_numbers():
    images = np.random.default_rng(3).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    drawn = augmentation.draw(tf.constant([5, 6]), 8)
    for compiled in (tf.function(augmentation.distort, jit_compile=True), augmentation.compiled_distort()):
        np.testing.assert_allclose(compiled(tf.constant(images), drawn), augmentation.distort(images, drawn), atol=1e-5)
    assert augmentation.compiled_distort() is augmentation.compiled_distort()


@pytest.fixture(scope="module")
def drawn():
    return augmentation.draw(tf.constant([1, 2]), 10_000)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", -32 / 255, 32 / 255), ("saturation", 0.5, 1.5), ("hue", -0.2, 0.2), ("contrast", 0.5, 1.5)],
)
def test_amounts_are_uniform_over_the_stated_ranges(drawn, name, low, high):
    values = getattr(drawn, name).numpy()
    assert low <= values.min()
    assert values.max() <= np.float32(high)
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


@pytest.mark.parametrize(("name", "choices"), [("left_right", 2), ("up_down", 2), ("order", 4)])
def test_flips_and_orders_are_equally_likely(drawn, name, choices):
    counts = np.bincount(getattr(drawn, name).numpy().astype(int), minlength=choices)
    assert len(counts) == choices
    assert stats.chisquare(counts).pvalue > 0.01


def test_draws_are_independent_of_each_other(drawn):
    stacked = np.stack([np.asarray(values, np.float32) for values in drawn])
    assert np.abs(np.corrcoef(stacked) - np.eye(len(drawn))).max() < 0.04
    # And of the draws of the next step.
    following = augmentation.draw(tf.constant([1, 3]), 10_000)
    for values, later in zip(stacked, following, strict=True):
        assert abs(np.corrcoef(values, np.asarray(later, np.float32))[0, 1]) < 0.04


def test_one_seed_gives_one_result():
    images = np.random.default_rng(4).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)

    @tf.function
    def run(seed):
        return augmentation.distort(images, augmentation.draw(seed, 8))

    first, again, other = (run(tf.constant(seed, tf.int64)).numpy() for seed in ([7, 8], [7, 8], [7, 9]))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()


def test_a_stronger_distortion_widens_the_ranges_of_the_same_draws():
    """As a transcription in NumPy from the draws in [0, 1) makes them; flips and orders stay."""
    seed, count = tf.constant([4, 2]), 5000
    plain = augmentation.draw(seed, count)
    ranges = {
        1.0: {
            "brightness": (-32 / 255, 32 / 255),
            "saturation": (0.5, 1.5),
            "hue": (-0.2, 0.2),
            "contrast": (0.5, 1.5),
        },
        1.5: {
            "brightness": (-48 / 255, 48 / 255),
            "saturation": (0.25, 1.75),
            "hue": (-0.3, 0.3),
            "contrast": (0.25, 1.75),
        },
        4.0: {"brightness": (-128 / 255, 128 / 255), "saturation": (0, 3), "hue": (-0.5, 0.5), "contrast": (0, 3)},
    }
    for strength, limits in ranges.items():
        drawn = augmentation.draw(seed, count, strength)
        for name, (low, high) in limits.items():
            first, width = ranges[1.0][name][0], np.ptp(ranges[1.0][name])
            shares = (getattr(plain, name).numpy() - first) / width
            np.testing.assert_allclose(getattr(drawn, name), low + shares * (high - low), atol=1e-5)
        for name in ("left_right", "up_down", "order"):
            np.testing.assert_array_equal(getattr(drawn, name), getattr(plain, name))


@pytest.mark.parametrize("strength", [0.0, 2.5])
def test_the_steps_of_a_recipe_distort_as_strongly_as_it_says(strength, monkeypatch):
    taken = []
    draw = augmentation.draw
    monkeypatch.setattr(augmentation, "draw", lambda *arguments: taken.append(draw(*arguments)) or taken[-1])
    recipe = dataclasses.replace(small_problem.RECIPE, colour_distortion=strength)
    state = training_step.TrainingState(small_problem.network(), recipe)
    state._draws(tf.constant(64), tf.constant([0, 0], tf.int64), tf.distribute.get_replica_context())
    (drawn,) = taken
    assert float(tf.reduce_max(tf.abs(drawn.hue))) == pytest.approx(min(0.2 * strength, 0.5), rel=0.1)
