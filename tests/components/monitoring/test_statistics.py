import io
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from components.monitoring.statistics import NAMES, SIDE, image_statistics
from marco_model.errors import InputError


def encode(pixels, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def measure(pixels, form="PNG"):
    return dict(zip(NAMES, image_statistics(encode(pixels, form)), strict=True))


def scene(height=SIDE, width=600, noise=0.0, gain=1.0):
    """A smooth pattern around 100, with noise of a known sigma."""
    y, x = np.mgrid[:height, :width]
    grey = 100 + 40 * np.sin(2 * np.pi * x / 60) * np.sin(2 * np.pi * y / 60)
    grey = grey + np.random.default_rng(1).normal(0, noise, grey.shape) if noise else grey
    return np.clip(np.rint(grey * gain), 0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def test_one_colour_has_closed_forms():
    got = measure(np.full((700, 500, 3), (200, 100, 50), np.uint8))
    assert (got["height"], got["width"]) == (700, 500)
    assert got["brightness"] == pytest.approx(350 / 3, abs=1e-4)
    assert got["contrast"] == pytest.approx(0, abs=1e-5)
    assert got["noise"] == pytest.approx(0, abs=1e-5)
    assert got["saturation"] == pytest.approx(150 / 200, abs=1e-5)
    assert got["warmth"] == pytest.approx(np.log2(201 / 51), abs=1e-5)
    assert got["sharpness"] == -4


def test_a_chessboard_has_closed_forms():
    # Four neighbours of the other colour: the Laplacian is 8 times the deviation, its variance 64 times the image's.
    y, x = np.mgrid[:SIDE, :SIDE]
    got = measure(np.where((x + y) % 2, 150, 50).astype(np.uint8)[..., None].repeat(3, 2))
    assert got["brightness"] == pytest.approx(100)
    assert got["contrast"] == pytest.approx(0.5)
    assert got["sharpness"] == pytest.approx(np.log10(64), abs=1e-3)


def test_sharpness_is_the_variance_of_opencvs_laplacian():
    grey = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE), np.uint8)
    inside = cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F, ksize=1)[1:-1, 1:-1]
    expected = np.log10(inside.var() / grey.astype(np.float64).var())
    assert measure(grey[..., None].repeat(3, 2))["sharpness"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_noise_is_measured(sigma):
    got = measure(scene(noise=sigma))
    assert got["noise"] * got["brightness"] == pytest.approx(sigma, rel=0.05)


def test_a_stronger_lamp_changes_the_brightness_alone():
    before, after = measure(scene(noise=3)), measure(scene(noise=3, gain=1.4))
    assert after["brightness"] == pytest.approx(1.4 * before["brightness"], rel=0.01)
    for name in ("contrast", "sharpness", "noise", "saturation", "warmth"):
        assert after[name] == pytest.approx(before[name], rel=0.03, abs=0.01), name


def test_blur_lowers_the_sharpness_and_not_the_brightness():
    sharp = scene(noise=3)
    before, after = measure(sharp), measure(cv2.GaussianBlur(sharp, (0, 0), 2))
    assert after["sharpness"] < before["sharpness"] - 0.5
    assert after["brightness"] == pytest.approx(before["brightness"], rel=0.01)


def test_statistics_do_not_depend_on_the_resolution(real_images):
    image = Image.open(real_images["crystals_10.jpeg"]).convert("RGB")
    small = image.resize((image.width * SIDE // image.height, SIDE), Image.Resampling.BOX)
    large, reduced = measure(np.asarray(image)), measure(np.asarray(small))
    assert (reduced["height"], large["height"]) == (SIDE, image.height)
    for name in NAMES[2:]:
        assert reduced[name] == pytest.approx(large[name], rel=0.05, abs=0.02), name


def test_real_images_are_finite_and_in_range(real_images):
    for path in real_images.values():
        got = image_statistics(path.read_bytes())
        assert np.isfinite(got).all()
        assert 0 < got[NAMES.index("brightness")] < 255
        assert 0 <= got[NAMES.index("saturation")] <= 1


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"no image at all"])
def test_a_file_that_is_not_an_image_is_refused(content):
    with pytest.raises(InputError, match="does not decode"):
        image_statistics(content)


@pytest.mark.parametrize("shape", [(4, 2000), (2, 4000), (1, 50_000), (50_000, 1)])
def test_a_strip_is_measured_by_its_middle_in_little_memory(shape):
    tracemalloc.start()
    got = measure(np.full((*shape, 3), (200, 100, 50), np.uint8))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (got["height"], got["width"]) == shape
    assert got["brightness"] == pytest.approx(350 / 3, abs=1e-4)
    assert most < 100e6


def test_an_image_that_opencv_does_not_decode_is_refused():
    with pytest.raises(InputError, match="does not decode"):
        image_statistics(encode(np.zeros((1, (1 << 20) + 1), np.uint8)))
