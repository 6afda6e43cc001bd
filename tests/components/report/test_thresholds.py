import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings, strategies as st

from components.report.curves import cost, threshold_for, thresholds


def check(row, positive, scores):
    """Compares a row with scikit-learn's numbers for the images at or above its threshold."""
    chosen = scores >= np.float32(row["threshold"])
    _, false_positives, missed, found = sklearn.metrics.confusion_matrix(positive, chosen, labels=[0, 1]).ravel()
    assert row["missed"] == missed
    assert row["recall"]["found"] == row["precision"]["found"] == found
    assert row["false_positives"]["found"] == false_positives
    assert row["recall"]["share"] == pytest.approx(sklearn.metrics.recall_score(positive, chosen), abs=1e-6)
    assert row["precision"]["share"] == pytest.approx(sklearn.metrics.precision_score(positive, chosen), abs=1e-6)
    assert row["looked_at"]["share"] == pytest.approx(chosen.mean(), abs=1e-6)
    if not positive.all():
        assert row["false_positives"]["share"] == pytest.approx(chosen[~positive].mean(), abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_every_number_matches_sklearn(predictions, ties):
    table = predictions(500, ties=ties)
    scores, positive = np.stack(list(table["scores"]))[:, 1], (table["label"] == 1).to_numpy()
    report = thresholds("Crystals", positive, scores, 0.98, [0.5, 0.9, 1.0])
    assert [row["wanted"] for row in report["rows"]] == [0.5, 0.9, 0.98, 1.0]
    assert report["chosen"] == report["rows"][2]
    precision, recall, at = sklearn.metrics.precision_recall_curve(positive, scores)
    for row in report["rows"]:
        check(row, positive, scores)
        place = np.flatnonzero(recall[:-1] >= row["wanted"])[-1]
        assert row["threshold"] == pytest.approx(float(at[place]), abs=1e-6)
        assert row["precision"]["share"] == pytest.approx(precision[place], abs=1e-6)
    points = {(round(point["recall"], 9), round(point["looked_at"], 9)) for point in report["curve"]}
    every = set()
    for threshold in np.unique(scores[positive]):
        chosen = scores >= threshold
        every.add((round(float(chosen[positive].mean()), 9), round(float(chosen.mean()), 9)))
    assert points <= every


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.3, 0.8, 1.0])), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.98, 1.0]),
)
@settings(deadline=None)
def test_the_threshold_is_the_highest_that_finds_enough(pairs, recall):
    positive, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.float32)
    if not positive.any():
        assert thresholds("Crystals", positive, scores, recall, []) is None
        return
    threshold = threshold_for(positive, scores, recall)
    assert (scores[positive] >= threshold).mean() >= recall - 1e-9
    higher = scores[positive][scores[positive] > threshold]
    assert len(higher) / positive.sum() < recall
    check(cost(positive, scores, recall), positive, scores)


def test_a_recall_that_divides_evenly_needs_no_extra_image():
    scores = np.arange(20, dtype=np.float32)
    assert threshold_for(np.ones(20, bool), scores, 0.95) == 1
