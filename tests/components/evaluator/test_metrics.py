"""Arithmetic against scikit-learn; no pipeline."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])), min_size=1, max_size=60))
@settings(deadline=None, max_examples=200)
def test_auc_is_sklearns_with_ties(pairs):
    from components.evaluator.metrics import area_under_roc

    positive, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.float32)
    found = area_under_roc(positive, scores)
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores))


def test_accumulators_merge_to_the_same_as_one_batch():
    from components.evaluator.metrics import _Combiner
    from marco_model.labels import CLASSES

    class Batch:
        def __init__(self, labels, predictions):
            self.labels, self.predictions = labels, predictions

    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 4, 50), rng.random([50, 4]).astype(np.float32)
    combiner = _Combiner(CLASSES, ["Crystals"])
    parts = [
        combiner.compact(combiner.add_input(combiner.create_accumulator(), Batch(labels[part], scores[part])))
        for part in (slice(0, 7), slice(7, 8), slice(8, 50))
    ]
    merged = combiner.extract_output(combiner.compact(combiner.merge_accumulators(parts)))
    whole = combiner.extract_output(combiner.add_input(combiner.create_accumulator(), Batch(labels, scores)))
    assert merged == whole
    by_name = {key.name: value for key, value in merged.items()}
    assert by_name["accuracy"] == sklearn.metrics.accuracy_score(labels, scores.argmax(axis=1))
    assert by_name["auc/Crystals"] == pytest.approx(sklearn.metrics.roc_auc_score(labels == 1, scores[:, 1]))
