"""Large images are prepared in a process of their own, as the server's own process would."""

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import marco_model
from benchmarks import serve_hostile
from marco_model import InputError, pixels
from marco_scoring.serving import classify, large_images, server


@pytest.mark.parametrize("shrink", [None, {"shorter_side": 200}])
def test_another_process_prepares_as_this_one(encoded, shrink):
    preparation = pixels.Preparation(151, shrink)
    prepared = large_images.prepare(encoded[0], preparation, None, 60)
    np.testing.assert_array_equal(prepared, preparation(encoded[0]))


def test_orientation_and_bits_are_applied():
    grey = np.linspace(0, 4095, 64 * 48, dtype=np.uint16).reshape(64, 48)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    eight = io.BytesIO()
    Image.fromarray((grey >> 4).astype(np.uint8)).save(eight, "PNG")
    preparation = pixels.Preparation(32)
    prepared = large_images.prepare(file.getvalue(), preparation, 12, 60)
    np.testing.assert_array_equal(prepared, preparation(eight.getvalue()))


def test_what_does_not_decode_is_refused_with_its_reason(encoded):
    with pytest.raises(InputError, match="does not decode"):
        large_images.prepare(encoded[0][:2000], pixels.Preparation(151), None, 60)


def test_a_decoder_that_takes_too_long_is_ended():
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="within 0 s"):
        large_images.prepare(serve_hostile.slow_jpeg(7000, 7000, 15), pixels.Preparation(151), None, 0.3)
    assert time.monotonic() - begun < 2


def test_a_large_image_has_the_scores_of_any_other(small_model, encoded):
    directory, expected = small_model
    classifier = marco_model.open_classifier(directory)
    images = [classify.Image(image, server.LARGE_WORK + number % 2) for number, image in enumerate(encoded)]

    async def main():
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as large:
            scorer = server.Scorer(classifier, "marco", classify.Concurrency(threads=2), (pool, large))
            damaged = classify.Image(encoded[0][:2000], server.LARGE_WORK + 1)
            return await scorer.score([damaged, *images], "")

    refused, *scored = asyncio.run(main())
    assert isinstance(refused, classify.Refused)
    np.testing.assert_allclose([outcome.scores for outcome in scored], expected, atol=1e-4)


def test_what_another_model_prepared_is_prepared_again(small_model, encoded):
    directory, expected = small_model
    classifier = marco_model.open_classifier(directory)
    other = classify.Prepared(encoded[0], pixels.Preparation(99), np.zeros((3, 99, 99), np.float32))
    outcome = classify.classify(classifier, other)
    np.testing.assert_allclose(outcome.scores, expected[0], atol=1e-4)
