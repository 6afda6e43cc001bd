import time

import numpy as np
import pytest

from components.monitoring.measure import Describer


@pytest.mark.slow
def test_it_gives_the_classifiers_scores_and_embeddings_in_one_pass(small_model, real_images):
    from marco_model.load import load

    encoded = [path.read_bytes() for path in real_images.values()] * 4
    describe, classifier = Describer(small_model), load(small_model)
    described = describe(encoded)
    np.testing.assert_allclose([scores for _, scores in described], classifier.score(encoded), atol=1e-6)
    np.testing.assert_allclose([embedding for embedding, _ in described], classifier.embed(encoded), atol=1e-5)
    images = classifier.images(encoded)
    once = _seconds(lambda: classifier.logits(images))
    assert _seconds(lambda: describe._both(images)) < 1.6 * once


def _seconds(run):
    run()
    times = []
    for _ in range(9):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.slow
def test_a_broken_image_does_not_affect_the_others(small_model, real_images):
    good = real_images["clear_220.jpeg"].read_bytes()
    first, fault, last = Describer(small_model)([good, good[:20000], good])
    np.testing.assert_allclose(first[1], last[1], atol=1e-6)
    assert "decode" in fault
