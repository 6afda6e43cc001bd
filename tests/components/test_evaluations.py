import json

import pandas as pd
import pytest

from components import evaluations
from marco_model.errors import InputError


def test_metrics_get_mlflow_names_and_undefined_ones_are_left_out(tmp_path):
    metrics = {"count": 3, "accuracy": 0.5, "auc/Crystals": None, "confusion_matrix": [[1, 0], [0, 2]]}
    evaluation = {"slices": {"overall": {"all": metrics}, "institution": {"CSIRO": metrics}}}
    (tmp_path / "metrics.json").write_text(json.dumps(evaluation))
    assert evaluations.flat_metrics(evaluations.slice_metrics(str(tmp_path))) == {
        "eval/count": 3.0,
        "eval/accuracy": 0.5,
        "eval/institution/CSIRO/count": 3.0,
        "eval/institution/CSIRO/accuracy": 0.5,
    }


def test_rows_of_a_plate_have_its_number_and_others_one_of_their_own():
    names = [
        "002s_C6_ImagerDefaults_9.jpg",
        "a.jpg",
        "002s_B1_ImagerDefaults_2.jpg",
        "a.jpg",
        "003t_C6_ImagerDefaults_9.jpg",
    ]
    table = pd.DataFrame({"filename": names, "institution": "CSIRO", "plate": ""})
    plates = evaluations.plates(table)
    assert plates[0] == plates[2]
    assert len(set(plates)) == 4
    elsewhere = evaluations.plates(table.assign(institution=["CSIRO", "", "Merck", "", ""]))
    assert len(set(elsewhere)) == 5
    recorded = evaluations.plates(table.assign(plate=["", "p", "", "p", "002s"]))
    assert recorded[1] == recorded[3] and recorded[0] == recorded[2] == recorded[4]


def test_a_missing_evaluation_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json"):
        evaluations.slice_metrics(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.8, "is 0.8000"), (0.849996, "is 0.849996"), (float("nan"), "cannot be computed from these examples")],
)
def test_the_message_of_a_missed_threshold_never_shows_a_value_that_meets_it(value, message):
    missed = evaluations.missed_thresholds({"recall/Crystals": 0.1, "accuracy": value}, {"accuracy": 0.85})
    assert missed == [f"accuracy {message}, and at least 0.85 is wanted"]


def test_a_threshold_is_met_by_its_own_value_and_missed_ones_come_in_the_order_of_the_metrics():
    metrics = {"accuracy": 0.85, "recall/Clear": 0.5, "recall/Crystals": 0.4}
    assert evaluations.missed_thresholds(metrics, {"accuracy": 0.85}) == []
    missed = evaluations.missed_thresholds(metrics, {"recall/Crystals": 0.9, "accuracy": 0.8, "recall/Clear": 0.9})
    assert [sentence.split()[0] for sentence in missed] == ["recall/Clear", "recall/Crystals"]
