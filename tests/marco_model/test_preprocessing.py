import io

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks import serve_hostile, serve_load
from marco_model import preprocessing


def png(pixels):
    return tf.io.encode_png(pixels).numpy()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def legacy_bilinear(image, size):
    """TensorFlow 1's default by its definition: output pixel i reads from input coordinate i * in / out."""

    def weights(length):
        position = np.arange(size) * length / size
        low = np.floor(position).astype(int)
        matrix = np.zeros((size, length))
        matrix[np.arange(size), low] += 1 - (position - low)
        matrix[np.arange(size), np.minimum(low + 1, length - 1)] += position - low
        return matrix

    return np.einsum("ih,hwc,jw->ijc", weights(image.shape[0]), image.astype(float), weights(image.shape[1]))


@pytest.mark.parametrize(("height", "width", "top", "left"), [(31, 40, 0, 4), (41, 30, 5, 0), (20, 20, 0, 0)])
@pytest.mark.parametrize("size", [17, 52])
def test_evaluation_is_centre_crop_then_legacy_bilinear_to_minus_one_to_one(height, width, top, left, size):
    image = noise(height, width)
    side = min(height, width)
    square = image[top : top + side, left : left + side]
    expected = (legacy_bilinear(square, size) / 255 - 0.5) * 2
    np.testing.assert_allclose(preprocessing.evaluation_image(png(image), size), expected, atol=1e-5)


def test_evaluation_images_equal_those_of_the_published_graph(published, encoded):
    tall = Image.open(io.BytesIO(encoded[0])).rotate(90, expand=True).crop((0, 0, 701, 951))
    images = tf.constant([*encoded[1:3], png(np.asarray(tall))])
    placeholder = published.signatures["serving_default"].inputs[0].name
    expected = published.prune(placeholder, "map/TensorArrayStack/TensorArrayGatherV3:0")(images)
    np.testing.assert_allclose(preprocessing.evaluation_batch(images, 599), expected, atol=1e-5)


def test_an_empty_batch_stays_empty():
    assert preprocessing.evaluation_batch(tf.zeros([0], tf.string), 33).shape == (0, 33, 33, 3)


def test_shrinking_keeps_the_aspect_and_averages_areas():
    smooth = np.add.outer(np.arange(12) * 8, np.arange(20) * 4) + 40
    grain = np.random.default_rng(0).integers(-40, 41, (192, 320))
    image = (np.kron(smooth, np.ones((16, 16), int)) + grain).astype(np.uint8)
    smaller = tf.io.decode_jpeg(preprocessing.shrink(png(np.repeat(image[..., None], 3, -1)), 12, 100)).numpy()
    assert smaller.shape == (12, 20, 3)
    assert np.abs(smaller[..., 0].astype(int) - smooth).max() <= 8


@pytest.mark.parametrize("quality", [50, 95])
def test_shrinking_a_real_image_follows_pillows_box_filter(encoded, quality):
    shrunk = preprocessing.shrink(tf.constant(encoded[3]), 256, quality).numpy()
    with Image.open(io.BytesIO(encoded[3])) as original:
        expected = np.asarray(original.resize((341, 256), Image.Resampling.BOX)).astype(int)
    with Image.open(io.BytesIO(shrunk)) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - expected).mean() < 4
    assert len(shrunk) < len(encoded[3])


def test_small_images_are_not_touched_by_shrinking():
    encoded = png(noise(20, 30))
    assert preprocessing.shrink(tf.constant(encoded), 20, 90).numpy() == encoded


def place_of(window, image):
    """Returns top and left of the only place in `image` that equals `window`."""
    corners = np.argwhere((image[:, :, 0] == window[0, 0, 0]) & (image[:, :, 1] == window[0, 0, 1]))
    size = len(window)
    places = [p for p in corners if np.array_equal(image[p[0] : p[0] + size, p[1] : p[1] + size], window)]
    assert len(places) == 1
    return tuple(places[0])


def test_windows_are_everywhere_and_follow_their_seed():
    image = noise(12, 10)
    encoded = tf.constant(png(image))
    windows = [preprocessing.random_window(encoded, 9, tf.constant([7, i])).numpy() for i in range(80)]
    assert {place_of(window, image) for window in windows} == {(top, left) for top in range(4) for left in range(2)}
    np.testing.assert_array_equal(windows[5], preprocessing.random_window(encoded, 9, tf.constant([7, 5])))


def test_a_jpegs_window_is_that_of_the_whole_image(encoded):
    whole = tf.io.decode_jpeg(encoded[2]).numpy().astype(int)
    place = tf.random.stateless_uniform([2], [1, 2]).numpy()
    top, left = (place * (np.array(whole.shape[:2]) - 598)).astype(int)
    window = preprocessing.random_window(tf.constant(encoded[2]), 599, tf.constant([1, 2])).numpy()
    # Chroma at the window's rim is interpolated from fewer neighbours.
    inner = np.abs(window - whole[top : top + 599, left : left + 599])[8:-8, 8:-8]
    assert inner.max() <= 1


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_images_smaller_than_the_window_are_scaled_up(kind):
    image = noise(20, 30)
    encoded = png(image) if kind == "png" else tf.io.encode_jpeg(image, quality=100).numpy()
    window = preprocessing.random_window(tf.constant(encoded), 40, tf.constant([0, 0]))
    assert window.shape == (40, 40, 3)
    assert window.dtype == tf.uint8
    assert abs(float(tf.reduce_mean(tf.cast(window, tf.float32))) - image.mean()) < 8


def corner_of(room, seed):
    """Where a window lies that has `room` places along height and width."""
    return (tf.random.stateless_uniform([2], seed).numpy() * np.array(room)).astype(int)


@pytest.mark.parametrize(("height", "width"), [(1, 1280), (1280, 1), (1, 1), (30, 41), (39, 400), (40, 41), (599, 40)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_any_shape_gives_a_window_of_its_own_pixels(height, width, kind):
    image = noise(height, width)
    encoded = png(image) if kind == "png" else tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False).numpy()
    image = tf.io.decode_jpeg(encoded).numpy()
    window = preprocessing.random_window(tf.constant(encoded), 40, tf.constant([3, 4])).numpy()
    side = min(height, width, 40)
    top, left = corner_of((height - side + 1, width - side + 1), [3, 4])
    square = image[top : top + side, left : left + side]
    expected = np.clip(np.round(legacy_bilinear(square, 40)), 0, 255) if side < 40 else square
    # Halves may round either way; a JPEG's edge is decoded from fewer neighbours.
    assert np.abs(window - expected.astype(int)).max() <= (1 if kind == "png" or side < 40 else 4)
    assert preprocessing.evaluation_image(tf.constant(encoded), 40).shape == (40, 40, 3)


def test_windows_of_small_images_are_everywhere():
    image = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None, :, None], 5, 0).repeat(3, 2)
    lefts = {
        int(preprocessing.random_window(tf.constant(png(image)), 10, tf.constant([7, i]))[0, 0, 0]) for i in range(200)
    }
    assert lefts == set(range(0, 210, 10))


def encode(image, form, **options):
    """The bytes of a Pillow image."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


SMOOTH = np.clip(np.add.outer(np.arange(48) * 3, np.arange(64) * 1.5), 0, 255).astype(np.uint8)
COLOURED = np.stack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH], axis=-1)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (encode(Image.fromarray(SMOOTH), "PNG"), SMOOTH[..., None].repeat(3, -1)),
        (encode(Image.fromarray(SMOOTH), "JPEG", quality=100), SMOOTH[..., None].repeat(3, -1)),
        (encode(Image.fromarray(SMOOTH.astype(np.uint16) * 256 + 7), "PNG"), SMOOTH[..., None].repeat(3, -1)),
        (encode(Image.fromarray(COLOURED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), COLOURED),
        (encode(Image.fromarray(np.dstack([COLOURED, SMOOTH])), "PNG"), COLOURED),
        (encode(Image.fromarray(COLOURED).convert("CMYK"), "JPEG", quality=100), COLOURED),
        (encode(Image.fromarray(COLOURED), "JPEG", quality=95, progressive=True), COLOURED),
    ],
    ids=["grey PNG", "grey JPEG", "16-bit PNG", "palette", "alpha", "CMYK JPEG", "progressive JPEG"],
)
def test_every_pixel_format_becomes_rgb_in_training_and_evaluation(encoded, expected):
    # A palette of 256 colours is off by a few units.
    np.testing.assert_allclose(preprocessing.decode(tf.constant(encoded)), expected.astype(int), atol=12)
    window = preprocessing.random_window(tf.constant(encoded), 40, tf.constant([3, 4])).numpy()
    top, left = corner_of((9, 25), [3, 4])
    np.testing.assert_allclose(window, expected[top : top + 40, left : left + 40].astype(int), atol=12)
    reduced = preprocessing.random_window(tf.constant(encoded), 10, tf.constant([3, 4]), (0.9, 1.0)).numpy()
    np.testing.assert_allclose(reduced, expected_window(expected, 10, [3, 4], (0.9, 1.0)), atol=12)


def expected_square(image, size, seed, share):
    """Returns top, left and side of a window with shares, and by what factor it is reduced first, in closed form."""
    draws = tf.random.stateless_uniform([3], seed).numpy()
    shorter = min(image.shape[:2])
    drawn = (share[0] + np.float32(share[1] - share[0]) * draws[2]) * np.float32(shorter)
    side = int(np.clip(np.round(drawn), 1, shorter))
    top, left = (draws[:2] * (np.array(image.shape[:2]) - side + 1).astype(np.float32)).astype(int)
    factor = max(factor for factor in (1, 2, 4, 8) if factor == 1 or side // factor >= size)
    return top // factor * factor, left // factor * factor, side // factor * factor, factor


def expected_window(image, size, seed, share):
    """Returns the window: means of blocks, then TensorFlow 1's bilinear rule."""
    top, left, side, factor = expected_square(image, size, seed, share)
    blocks = image[top : top + side, left : left + side].reshape(side // factor, factor, side // factor, factor, 3)
    reduced = blocks.mean(axis=(1, 3))
    return legacy_bilinear(reduced, size) if side // factor != size else reduced


def largest_difference(window, expected):
    """The largest difference of a uint8 window from values that may be fractions."""
    return np.abs(window.astype(float) - expected).max()


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.integers(3, 20),
    seed=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    percent=st.lists(st.integers(1, 100), min_size=2, max_size=2).map(sorted),
)
def test_windows_by_share_are_those_of_the_closed_form(height, width, size, seed, percent):
    share = percent[0] / 100, percent[1] / 100
    image = noise(height, width)
    window = preprocessing.random_window(tf.constant(png(image)), size, tf.constant(seed), share).numpy()
    # Blocks and bilinear are each rounded.
    assert largest_difference(window, expected_window(image, size, seed, share)) <= 1.01


def ramp(height, width):
    """An image whose red tells the row and whose green the column, each from 0 at one side to 240 at the other."""
    rows, columns = np.mgrid[:height, :width]
    values = np.stack([rows * (240 / height), columns * (240 / width), np.full(rows.shape, 128.0)], axis=-1)
    return np.round(values).astype(np.uint8)


def seen_square(window, height, width):
    """Reads top, left and side, in pixels of the image, off a window of a `ramp`."""
    size = len(window)
    down, first = np.polyfit(np.arange(size), window[..., 0].mean(axis=1) * (height / 240), 1)
    across, column = np.polyfit(np.arange(size), window[..., 1].mean(axis=0) * (width / 240), 1)
    assert down == pytest.approx(across, rel=0.05)
    return first, column, size * (down + across) / 2


@pytest.mark.parametrize(("height", "width"), [(480, 640), (700, 480), (480, 2000)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_place_and_scale_can_be_read_off_a_window(height, width, kind):
    image = ramp(height, width)
    encoded = tf.constant(png(image) if kind == "png" else tf.io.encode_jpeg(image, quality=100).numpy())
    squares = []
    for number in range(60):
        window = preprocessing.random_window(encoded, 50, tf.constant([number, 7]), (0.5, 1.0)).numpy()
        top, left, side = seen_square(window, height, width)
        assert 0.48 <= side / 480 <= 1.02
        assert top > -8 and top + side < height + 8 and left > -8 and left + side < width + 8
        expected = expected_square(image, 50, [number, 7], (0.5, 1.0))
        # The centre of the first pixel of a reduced image lies half a block in; values are rounded.
        assert np.abs(np.subtract((top, left, side), expected[:3])).max() < 10
        squares.append((top, left, side / 480))
    tops, lefts, shares = np.transpose(squares)
    assert shares.min() < 0.56 and shares.max() > 0.94 and abs(shares.mean() - 0.75) < 0.07
    assert np.ptp(tops) > 100 and np.ptp(lefts) > 100


@pytest.mark.parametrize("share", [(0.3, 0.3), (0.6, 1.0), (1.0, 1.0)])
def test_jpeg_and_png_of_the_same_pixels_give_the_same_window(share):
    image = ramp(400, 520)
    jpeg = tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False).numpy()
    for number in range(8):
        windows = [
            preprocessing.random_window(tf.constant(encoded), 48, tf.constant([1, number]), share).numpy()
            for encoded in (jpeg, png(image))
        ]
        assert largest_difference(windows[0], windows[1].astype(float)) <= 4


@pytest.mark.parametrize(("share", "factor"), [(0.25, 2), (0.5, 4), (1.0, 8)])
def test_a_reduced_window_is_that_of_pillows_reduced_image(encoded, share, factor):
    # 240, 480 and 960 of 960 pixels, reduced to 120: nothing is left to resize.
    with Image.open(io.BytesIO(encoded[2])) as image:
        assert image.size == (1280, 960)
        image.draft("RGB", (1280 // factor, 960 // factor))
        reduced = np.asarray(image.convert("RGB")).astype(float)
    assert reduced.shape == (960 // factor, 1280 // factor, 3)
    whole = np.zeros((960, 1280, 3))
    top, left, side, chosen = expected_square(whole, 120, [3, 5], (share, share))
    assert (side // factor, chosen) == (120, factor)
    window = preprocessing.random_window(tf.constant(encoded[2]), 120, tf.constant([3, 5]), (share, share)).numpy()
    expected = reduced[top // factor :, left // factor :][:120, :120]
    assert largest_difference(window[4:-4, 4:-4], expected[4:-4, 4:-4]) <= 2


def test_a_window_of_the_whole_image_is_what_evaluation_sees(encoded):
    tall = Image.open(io.BytesIO(encoded[0])).crop((100, 0, 1060, 960))
    for square, tolerance in ((png(np.asarray(tall)), 0.51), (png(noise(40, 40)), 0.51), (png(noise(1, 1)), 0.51)):
        window = preprocessing.random_window(tf.constant(square), 599, tf.constant([3, 4]), (1.0, 1.0))
        seen = preprocessing.evaluation_image(tf.constant(square), 599)
        assert np.abs(preprocessing.to_network_range(window) - seen).max() <= tolerance / 127.5


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1280), (1280, 1), (1, 1), (2, 3), (30, 41), (39, 400), (599, 40), (97, 1501)]
)
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_any_shape_gives_a_window_by_share(height, width, kind):
    image = noise(height, width)
    encoded = png(image) if kind == "png" else tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False).numpy()
    image = tf.io.decode_jpeg(encoded).numpy()
    for number in range(5):
        window = preprocessing.random_window(tf.constant(encoded), 40, tf.constant([3, number]), (0.7, 1.0)).numpy()
        expected = expected_window(image, 40, [3, number], (0.7, 1.0))
        inner = slice(2, -2) if kind == "jpeg" else slice(None)
        difference = np.abs(window - expected)[inner, inner]
        # Of noise, the decoder's reduction is not the mean of its blocks to the last unit.
        assert difference.max() <= 1.01 if kind == "png" or max(height, width) < 97 else difference.mean() < 3


def test_windows_by_share_follow_their_seed(encoded):
    first, same, other = (
        preprocessing.random_window(tf.constant(encoded[2]), 64, tf.constant(seed), (0.7, 1.0)).numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).mean() > 0.5


def test_a_dataset_yields_windows(encoded):
    images = tf.data.Dataset.from_tensor_slices((encoded, tf.range(len(encoded))))
    windows = images.map(lambda image, i: preprocessing.random_window(image, 64, tf.stack([0, i])))
    assert [window.shape for window in windows] == [(64, 64, 3)] * len(encoded)


def test_elements_stay_as_they_are_and_nothing_tunes():
    dataset = tf.data.Dataset.range(9).map(lambda x: x * x, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)
    assert list(preprocessing.without_autotuning(dataset).as_numpy_iterator()) == [x * x for x in range(9)]
    assert preprocessing.without_autotuning(dataset).options().autotune.enabled is False


def _many_scans():
    jpeg = serve_hostile.slow_jpeg(64, 64, 15)
    return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * 90 + jpeg[-2:]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def served_graph(encoded):
    return preprocessing.evaluation_batch(encoded, 20)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (serve_hostile.hidden_frame(), r"more than 50000000 pixels:\] \[178756900"),
        (serve_load.BILLION_PIXELS, r"more than 50000000 pixels:\] \[1000000000"),
        (_many_scans(), r"too many scans for its size:\] \[105"),
        (b"GIF89a" + bytes(30), "neither a JPEG nor a PNG"),
        (b"", "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff", ""),
        (png(noise(8, 8))[:20], ""),
    ],
    ids=["hidden frame", "PNG", "scans", "GIF", "nothing", "half a JPEG", "half a PNG"],
)
def test_a_served_graph_refuses_what_costs_too_much(encoded, reason):
    """On 363bfd5 the graph decoded up to 512 MiB, and any number of scans."""
    sound = png(noise(40, 30))
    assert served_graph(tf.constant([sound])).shape == (1, 20, 20, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        served_graph(tf.constant([sound, encoded]))
