import json

import numpy as np
import pytest
import sklearn.metrics

from components.report.numbers import numbers
from components.settings import ReportOptions, parse
from marco_model.errors import InputError


def test_the_headline_is_sklearns_and_all_of_it_is_json(predictions, evaluation):
    table = predictions(300)
    told = numbers(table, evaluation(), ReportOptions(), temperature=0.6)
    labels, predicted = table["label"].to_numpy(int), np.stack(list(table["scores"])).argmax(axis=1)
    assert told["accuracy"]["share"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted), abs=1e-6)
    recall = sklearn.metrics.recall_score(labels, predicted, labels=[1], average=None)[0]
    assert told["target"]["name"] == "Crystals"
    assert told["target"]["recall"]["share"] == pytest.approx(recall, abs=1e-6)
    assert [one["name"] for one in told["roc"]] == ["Crystals", "Precipitate"]
    assert told["calibration"]["temperature"] == 0.6
    assert told["thresholds"]["chosen"]["wanted"] == 0.98
    assert told["paper"] == {"accuracy": 0.945, "images": 47_062}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_the_gate_has_the_last_word(predictions, evaluation):
    met = evaluation()
    assert numbers(predictions(40), met, ReportOptions())["verdict"]["blessed"] is True
    failed = numbers(predictions(40), evaluation(blessed=False, failures=["too low"]), ReportOptions())["verdict"]
    assert (failed["blessed"], failed["reasons"], failed["checks"]) == (False, ["too low"], [])
    decision = {"blessed": False, "champion": {"model": "m", "version": "7"}, "reasons": ["worse"], "checks": [{}]}
    told = numbers(predictions(40), met, ReportOptions(), decision=decision)["verdict"]
    assert (told["blessed"], told["reasons"], told["champion"]["version"]) == (False, ["worse"], "7")
    assert told["thresholds"] == [{"name": "accuracy", "bound": 0.65}]


def test_other_classes_are_reported_without_the_paper(predictions, evaluation):
    classes = ("Hit", "Miss", "Unclear")
    table = predictions(90, classes=classes)
    told = numbers(table, evaluation(classes), ReportOptions())
    assert told["paper"] is told["target"] is told["thresholds"] is None
    assert [one["name"] for one in told["roc"]] == list(classes)
    chosen = numbers(table, evaluation(classes), ReportOptions(target="Hit"))
    assert chosen["thresholds"]["name"] == "Hit"
    assert chosen["errors"][0]["label"] == "Hit"
    with pytest.raises(InputError, match=r"report\.target is 'Crystals'; give one of Hit, Miss, Unclear"):
        numbers(table, evaluation(classes), ReportOptions(target="Crystals"))


def test_a_set_without_crystals_is_reported_all_the_same(predictions, evaluation):
    table = predictions(60)
    table = table[table["label"] != 1].reset_index(drop=True)
    told = numbers(table, evaluation(), ReportOptions())
    assert told["thresholds"] is None
    assert told["target"]["recall"]["share"] is None
    assert told["roc"][0]["auc"] is None


@pytest.mark.parametrize("wrong", [{"recall": 0.0}, {"recalls": (98.0,)}, {"errors": -1}, {"overlay_samples": 0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=r"report\."):
        parse(ReportOptions, wrong, "here", "report")


def test_options_come_back_from_their_text():
    options = ReportOptions(target="Crystals", recalls=(0.5, 0.9))
    assert ReportOptions.model_validate_json(options.model_dump_json()) == options
