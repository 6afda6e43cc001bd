import json

import numpy as np
import pytest
import sklearn.metrics

from components.report.numbers import numbers
from components.settings import ReportOptions, parse
from marco_model.errors import InputError


def test_the_headline_matches_sklearn_and_the_report_is_valid_json(predictions, evaluation):
    table = predictions(300)
    report = numbers(table, evaluation(), ReportOptions(), temperature=0.6)
    labels, predicted = table["label"].to_numpy(int), np.stack(list(table["scores"])).argmax(axis=1)
    assert report["accuracy"]["share"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted), abs=1e-6)
    recall = sklearn.metrics.recall_score(labels, predicted, labels=[1], average=None)[0]
    assert report["target"]["name"] == "Crystals"
    assert report["target"]["recall"]["share"] == pytest.approx(recall, abs=1e-6)
    assert [curve["name"] for curve in report["roc"]] == ["Crystals", "Precipitate"]
    assert report["calibration"]["temperature"] == 0.6
    assert report["thresholds"]["chosen"]["wanted"] == 0.98
    assert report["paper"] == {"accuracy": 0.945, "images": 47_062}
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_verdict_is_the_gates(predictions, evaluation):
    met = evaluation()
    assert numbers(predictions(40), met, ReportOptions())["verdict"]["blessed"] is True
    failed = numbers(predictions(40), evaluation(blessed=False, failures=["too low"]), ReportOptions())["verdict"]
    assert (failed["blessed"], failed["reasons"], failed["checks"]) == (False, ["too low"], [])
    decision = {"blessed": False, "champion": {"model": "m", "version": "7"}, "reasons": ["worse"], "checks": [{}]}
    verdict = numbers(predictions(40), met, ReportOptions(), decision=decision)["verdict"]
    assert (verdict["blessed"], verdict["reasons"], verdict["champion"]["version"]) == (False, ["worse"], "7")
    assert verdict["thresholds"] == [{"name": "accuracy", "bound": 0.65}]


def test_other_classes_are_reported_without_the_paper(predictions, evaluation):
    classes = ("Hit", "Miss", "Unclear")
    table = predictions(90, classes=classes)
    report = numbers(table, evaluation(classes), ReportOptions())
    assert report["paper"] is report["target"] is report["thresholds"] is None
    assert [curve["name"] for curve in report["roc"]] == list(classes)
    chosen = numbers(table, evaluation(classes), ReportOptions(target="Hit"))
    assert chosen["thresholds"]["name"] == "Hit"
    assert chosen["errors"][0]["label"] == "Hit"
    with pytest.raises(InputError, match=r"report\.target is 'Crystals'; give one of Hit, Miss, Unclear"):
        numbers(table, evaluation(classes), ReportOptions(target="Crystals"))


def test_a_data_set_without_crystals_is_reported(predictions, evaluation):
    table = predictions(60)
    table = table[table["label"] != 1].reset_index(drop=True)
    report = numbers(table, evaluation(), ReportOptions())
    assert report["thresholds"] is None
    assert report["target"]["recall"]["share"] is None
    assert report["roc"][0]["auc"] is None


@pytest.mark.parametrize("wrong", [{"recall": 0.0}, {"recalls": (98.0,)}, {"errors": -1}, {"overlay_samples": 0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=r"report\."):
        parse(ReportOptions, wrong, "here", "report")


def test_options_survive_a_round_trip_through_json():
    options = ReportOptions(target="Crystals", recalls=(0.5, 0.9))
    assert ReportOptions.model_validate_json(options.model_dump_json()) == options
