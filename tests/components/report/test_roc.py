import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings, strategies as st

from components.report.curves import curve, roc, thinned
from marco_model.labels import CLASSES


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])), min_size=1, max_size=60))
@settings(deadline=None)
def test_the_curve_has_one_counted_point_per_score(pairs):
    positive, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.float32)
    points = curve(positive, scores)
    if positive.all() or not positive.any():
        assert points is None
        return
    levels = np.unique(scores)[::-1]
    assert points.threshold.tolist() == [np.inf, *levels]
    flagged = [np.zeros(len(scores), bool), *(scores >= level for level in levels)]
    np.testing.assert_allclose(points.false_positive_rate, [calls[~positive].mean() for calls in flagged], atol=1e-12)
    np.testing.assert_allclose(points.recall, [calls[positive].mean() for calls in flagged], atol=1e-12)
    above = scores[positive][:, None] - scores[~positive][None]
    auc = roc("Crystals", positive, scores, CLASSES)["auc"]
    assert auc == pytest.approx(((above > 0) + (above == 0) / 2).mean(), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_every_number_of_a_class_matches_sklearn(predictions, ties):
    table = predictions(500, ties=ties)
    scores = np.stack(list(table["scores"]))[:, 1]
    positive = table["label"].to_numpy() == 1
    result = roc("Crystals", positive, scores, CLASSES)
    rates, recalls, thresholds = sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False)
    assert result["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores), abs=1e-6)
    assert (result["positives"], result["negatives"]) == (positive.sum(), (~positive).sum())
    at = {
        threshold: (rate, recall)
        for threshold, rate, recall in zip(thresholds[1:], rates[1:], recalls[1:], strict=True)
    }
    first, *rest = result["points"]
    assert first == {"threshold": None, "false_positive_rate": 0, "recall": 0}
    assert len(result["points"]) == min(len(thresholds), 200)
    for point in rest:
        expected = at[np.float32(point["threshold"])]
        assert (point["false_positive_rate"], point["recall"]) == pytest.approx(expected, abs=1e-6)
    assert result["paper_auc"] == 0.988
    assert [(point["wanted"], point["paper"]) for point in result["operating"]] == [(0.987, 0.19), (0.94, 0.016)]
    for point in result["operating"]:
        assert point["false_positive_rate"] == pytest.approx(rates[recalls >= point["wanted"]].min(), abs=1e-6)
        assert point["recall"] >= point["wanted"]
        assert at[np.float32(point["threshold"])] == pytest.approx((point["false_positive_rate"], point["recall"]))


def test_a_class_of_another_scheme_has_no_paper_figures(predictions):
    table = predictions(60, classes=("Hit", "Miss"))
    result = roc("Hit", table["label"].to_numpy() == 0, np.stack(list(table["scores"]))[:, 0], ["Hit", "Miss"])
    assert result["paper_auc"] is None
    assert [(point["wanted"], point["paper"]) for point in result["operating"]] == [
        (0.99, None),
        (0.95, None),
        (0.9, None),
    ]


def test_a_curve_needs_positives_and_negatives():
    result = roc("Crystals", np.zeros(3, bool), np.zeros(3, np.float32), CLASSES)
    assert (result["auc"], result["points"], result["operating"]) == (None, [], [])


def test_few_points_are_kept_and_both_ends_are_among_them():
    assert thinned(3).tolist() == [0, 1, 2]
    kept = thinned(10_000)
    assert len(kept) == 200
    assert (kept[0], kept[-1]) == (0, 9999)
