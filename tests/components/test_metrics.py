"""Arithmetic against definitions and scikit-learn; no pipeline."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings, strategies as st

pytestmark = pytest.mark.slow


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])), min_size=1, max_size=60))
@settings(deadline=None, max_examples=200)
def test_auc_is_how_often_a_positive_scores_above_a_negative(pairs):
    from components.evaluations import area_under_roc

    positive, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.float32)
    area = area_under_roc(positive, scores)
    if positive.all() or not positive.any():
        assert np.isnan(area)
    else:
        above = scores[positive][:, None] - scores[~positive][None]
        assert area == pytest.approx(((above > 0) + (above == 0) / 2).mean(), abs=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_metrics_are_sklearns_or_undefined(seed, count):
    from components.evaluations import confusion_matrix, metrics_of
    from marco_model.labels import CLASSES

    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 4, count), rng.random([count, 4]).astype(np.float32)
    guesses = scores.argmax(axis=1)
    found = metrics_of(confusion_matrix(labels, guesses, 4), labels, scores, CLASSES)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, guesses))
    precision, recall, _, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, guesses, labels=range(4), zero_division=np.nan
    )
    for kind, expected in (("precision", precision), ("recall", recall)):
        np.testing.assert_allclose([found[f"{kind}/{name}"] for name in CLASSES], expected)
