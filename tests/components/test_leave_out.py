"""The comparison of home and away, against closed forms, pandas and scikit-learn on tables that are drawn here."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics

from components import leave_out
from marco_model.errors import InputError
from marco_model.labels import CLASSES

CRYSTALS = CLASSES.index("Crystals")
SOURCES = ("CSIRO", "Merck", "HWMRI")


def table(count=600, right=0.8, seed=0, plates=0):
    """Returns a table of which about the share `right` is scored right; `plates`: how many there are, 0 for none."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, count)
    institutions = [SOURCES[number % 3] for number in range(count)]
    chance = np.random.default_rng(seed)
    scores = chance.dirichlet([1] * 4, count) * 0.1
    answers = np.where(chance.random(count) < right, labels, chance.integers(0, 4, count))
    scores[np.arange(count), answers] += 0.9
    return pd.DataFrame(
        {
            "shard": "data_tfrecord-00000-of-00001",
            "index": np.arange(count, dtype=np.int32),
            "image_id": np.arange(count) + 1000,
            "filename": [f"{number}.jpg" for number in range(count)],
            "label": labels.astype(np.int16),
            "institution": institutions,
            "imager": "one",
            "scores": list(scores.astype(np.float32)),
            "plate": [f"P{number // 3 % plates}" if plates else "" for number in range(count)],
        }
    )


def compare(home, away, values=SOURCES, target="Crystals", smallest=20):
    away = away[away["institution"].isin(list(values))]
    return leave_out.compare(home, away, "institution", values, CLASSES, target, smallest)


def right_of(table, rows):
    return (np.stack(list(table["scores"])).argmax(axis=1) == table["label"].to_numpy())[rows]


def agresti_min(home, away):
    """Wald's interval of the difference after half an image is added to each cell of the two by two table."""
    gained, lost, count = (away & ~home).sum() + 0.5, (home & ~away).sum() + 0.5, len(home) + 2
    middle = (gained - lost) / count
    error = math.sqrt(gained + lost - (gained - lost) ** 2 / count) / count
    return middle, error, scipy.stats.norm.ppf(0.975)


def test_each_row_is_of_one_source_and_both_models():
    home, away = table(), table(right=0.6, seed=1)
    content = compare(home, away)
    assert [row["value"] for row in content["rows"]] == list(SOURCES)
    for row in content["rows"]:
        of_source = (home["institution"] == row["value"]).to_numpy()
        crystals = of_source & (home["label"] == CRYSTALS).to_numpy()
        assert row["images"] == of_source.sum()
        for name, rows in (("accuracy", of_source), ("target", crystals)):
            shown, (own, other) = row[name], (right_of(part, rows) for part in (home, away))
            assert (shown["home"]["count"], shown["away"]["found"]) == (rows.sum(), other.sum())
            assert (shown["home"]["share"], shown["away"]["share"]) == pytest.approx((own.mean(), other.mean()))
            assert shown["difference"] == pytest.approx(other.mean() - own.mean())
            middle, error, reach = agresti_min(own, other)
            assert (shown["low"], shown["high"]) == pytest.approx((middle - reach * error, middle + reach * error))
        predicted = np.stack(list(away["scores"])).argmax(axis=1)[of_source]
        recall = sklearn.metrics.recall_score(away["label"][of_source], predicted, labels=[CRYSTALS], average=None)[0]
        assert row["target"]["away"]["share"] == pytest.approx(recall)


def test_the_mean_weighs_sources_alike_and_its_errors_are_independent():
    home, away = table(), table(right=0.6, seed=1)
    uneven = (home["institution"] != "HWMRI") | (home["index"] % 2 == 0)
    home, away = home[uneven], away[uneven]
    mean, rows = compare(home, away)["mean"]["accuracy"], [(home["institution"] == name).to_numpy() for name in SOURCES]
    both = [[right_of(part, chosen) for part in (home, away)] for chosen in rows]
    assert mean["values"] == 3
    assert mean["home"] == pytest.approx(np.mean([own.mean() for own, _ in both]))
    assert mean["away"] == pytest.approx(np.mean([other.mean() for _, other in both]))
    assert mean["difference"] == pytest.approx(mean["away"] - mean["home"])
    error = math.sqrt(sum(agresti_min(*pair)[1] ** 2 for pair in both)) / 3
    reach = scipy.stats.norm.ppf(0.975) * error
    assert (mean["low"], mean["high"]) == pytest.approx((mean["difference"] - reach, mean["difference"] + reach))


def test_images_of_a_plate_count_together():
    home, away = table(right=0.9), table(right=0.6, seed=1)
    plates = np.where(right_of(away, slice(None)), "right", "wrong")
    apart = compare(home, away)["rows"][0]["accuracy"]
    together = compare(home.assign(plate=plates), away.assign(plate=plates))["rows"][0]["accuracy"]
    assert together["difference"] == apart["difference"]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_nothing_is_said_of_few_images_and_they_are_not_in_the_mean():
    home, away = table(), table(right=0.6, seed=1)
    few = (home["institution"] != "Merck") | (home["index"] < 30)
    content = compare(home[few], away[few], values=("CSIRO", "Merck", "absent"))
    _, merck, absent = content["rows"]
    assert (merck["images"], merck["accuracy"]["difference"], merck["accuracy"]["low"]) == (10, None, None)
    assert merck["accuracy"]["home"]["share"] is not None
    assert (absent["images"], absent["accuracy"]["home"]["share"], absent["accuracy"]["difference"]) == (0, None, None)
    assert content["mean"]["accuracy"]["values"] == 1
    assert compare(home, away, smallest=1000)["mean"] == {"accuracy": None, "target": None}


def test_without_a_class_that_must_not_be_missed_there_is_accuracy_alone():
    content = compare(table(), table(seed=1), target=None)
    assert content["mean"]["target"] is None
    assert all(row["target"] is None and row["accuracy"] for row in content["rows"])
    assert not [name for name in leave_out.flat_metrics(content) if "recall" in name]


def test_without_any_evaluation_image_there_is_a_table():
    content = leave_out.compare(table()[:0], table()[:0], "institution", ["CSIRO"], CLASSES, "Crystals", 20)
    assert (content["rows"][0]["images"], content["mean"]["accuracy"]) == (0, None)


@pytest.mark.parametrize("change", [{"label": 0}, {"image_id": 5}])
def test_tables_of_other_images_are_refused(change):
    with pytest.raises(InputError, match="not of the same images"):
        compare(table(), table(seed=1).assign(**change))
    with pytest.raises(InputError, match="not of the same images"):
        compare(table(), table(seed=1)[1:])


def test_mlflow_gets_each_share_and_difference_by_its_name():
    content = compare(table(), table(right=0.6, seed=1))
    metrics = leave_out.flat_metrics(content)
    assert len(metrics) == 4 * 2 * 3
    merck = content["rows"][1]
    assert metrics["leave_out/institution/Merck/accuracy/home"] == merck["accuracy"]["home"]["share"]
    assert metrics["leave_out/institution/Merck/recall/Crystals/difference"] == merck["target"]["difference"]
    assert metrics["leave_out/institution/mean/accuracy/away"] == content["mean"]["accuracy"]["away"]


FOUND = {"train": ["Merck", "CSIRO", "Merck", "Zürich"], "validation": ["CSIRO", "Merck"]}


def test_the_records_of_a_source_are_told_apart_in_their_order(tmp_path):
    path = str(tmp_path / "artifact" / leave_out.SOURCES_FILE)
    leave_out.write_sources(path, FOUND)
    assert leave_out.seen(path, "train", "Merck").tolist() == [False, True, False, True]
    assert leave_out.seen(path, "train", "Zürich").tolist() == [True, True, True, False]
    assert leave_out.seen(path, "validation", "Merck").tolist() == [True, False]
    assert leave_out.seen(path, "validation", "another").all()
    assert leave_out.seen(path, "train", "CSIRO").dtype == np.bool_


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sources\.npz is missing; run the step Sources again"):
        leave_out.seen(str(tmp_path / "sources.npz"), "train", "Merck")


@pytest.mark.parametrize(
    ("found", "value", "message"),
    [
        (FOUND, "Merk", "no training image has the institution 'Merk'; leave_out.values may be CSIRO, Merck, Zürich"),
        ({**FOUND, "train": ["Merck"]}, "Merck", "without the institution 'Merck' no train image is left"),
        ({**FOUND, "validation": ["Merck"] * 3}, "Merck", "'Merck' no validation image is left; leave it out of"),
    ],
)
def test_what_cannot_be_left_out_is_refused(found, value, message):
    with pytest.raises(InputError, match=message):
        leave_out.check_sources(found, "institution", ["CSIRO", value] if "CSIRO" in found["train"] else [value])


def test_a_source_that_can_be_left_out_is_accepted():
    leave_out.check_sources(FOUND, "institution", ["Merck", "CSIRO", "Zürich"])
