import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from components.report.numbers import slices


def check(share, right):
    assert (share["found"], share["count"]) == (right.sum(), len(right))
    interval = scipy.stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95, "wilson")
    expected = (right.mean(), interval.low, interval.high)
    assert (share["share"], share["low"], share["high"]) == pytest.approx(expected, abs=1e-6)


def test_every_slice_matches_pandas_sklearn_and_scipy(predictions):
    table = predictions(300)
    predicted = np.stack(list(table["scores"])).argmax(axis=1)
    right, crystals = predicted == table["label"], (table["label"] == 1).to_numpy()
    found = slices(table, right.to_numpy(), crystals)
    assert [part["kind"] for part in found] == ["institution", "imager", "institution × imager"]
    table["both"] = table["institution"] + " × " + table["imager"]
    for part, column in zip(found, ("institution", "imager", "both"), strict=True):
        groups = table.groupby(column).indices
        assert [row["name"] for row in part["rows"]] == sorted(groups)
        for row in part["rows"]:
            chosen = groups[row["name"]]
            labels, calls = table["label"].to_numpy()[chosen], predicted[chosen]
            check(row["accuracy"], labels == calls)
            check(row["target"], calls[labels == 1] == 1)
            recall = sklearn.metrics.recall_score(labels, calls, labels=[1], average=None)[0]
            assert row["target"]["share"] == pytest.approx(recall, abs=1e-6)
    assert sum(row["accuracy"]["count"] for row in found[2]["rows"]) == len(table)


def test_a_slice_without_crystals_has_no_recall_of_them(predictions):
    table = predictions(30)
    table["label"] = 0
    found = slices(table, np.ones(30, bool), np.zeros(30, bool))
    assert all(row["target"]["share"] is None for part in found for row in part["rows"])
    assert all(row["target"] is None for part in slices(table, np.ones(30, bool), None) for row in part["rows"])
