import numpy as np
import pytest
from tensorflow.python.eager import context

from components.monitoring.measure import Describer


@pytest.mark.slow
def test_it_gives_the_classifiers_scores_and_embeddings_in_one_pass(small_model, real_images):
    from marco_model.load import open_classifier

    encoded = [path.read_bytes() for path in real_images.values()] * 4
    describe, classifier = Describer(small_model), open_classifier(small_model)
    described = describe(encoded)
    np.testing.assert_allclose([scores for _, scores in described], classifier.score(encoded), atol=1e-6)
    np.testing.assert_allclose([embedding for embedding, _ in described], classifier.embed(encoded), atol=1e-5)
    images = classifier.images(encoded)
    describe, classifier = Describer(small_model), open_classifier(small_model)
    assert count_convolutions(describe._both, images) == count_convolutions(classifier.logits, images) > 0


def count_convolutions(function, images):
    """Returns how many convolutions the runtime computes after its optimizations, which the first call makes."""
    with context.collect_graphs(optimized=True) as graphs:
        function(images)
    return sum("Conv2D" in node.op for graph in graphs for node in graph.node)


@pytest.mark.slow
def test_a_broken_image_does_not_affect_the_others(small_model, real_images):
    good = real_images["clear_220.jpeg"].read_bytes()
    first, fault, last = Describer(small_model)([good, good[:20000], good])
    np.testing.assert_allclose(first[1], last[1], atol=1e-6)
    assert "decode" in fault
