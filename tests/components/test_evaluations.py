import json

import pytest

from components import evaluations
from marco_model.errors import InputError


def test_metrics_are_named_for_mlflow_and_the_undefined_left_out(tmp_path):
    one = {"count": 3, "accuracy": 0.5, "auc/Crystals": None, "confusion_matrix": [[1, 0], [0, 2]]}
    evaluation = {"slices": {"overall": {"all": one}, "institution": {"CSIRO": one}}}
    (tmp_path / "metrics.json").write_text(json.dumps(evaluation))
    assert evaluations.flat_metrics(evaluations.slice_metrics(str(tmp_path))) == {
        "eval/count": 3.0,
        "eval/accuracy": 0.5,
        "eval/institution/CSIRO/count": 3.0,
        "eval/institution/CSIRO/accuracy": 0.5,
    }


def test_a_missing_evaluation_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json"):
        evaluations.slice_metrics(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.8, "is 0.8000"), (0.849996, "is 0.849996"), (float("nan"), "cannot be told from these examples")],
)
def test_a_missed_threshold_never_looks_met(value, told):
    from tensorflow_model_analysis.proto import validation_result_pb2

    validation = validation_result_pb2.ValidationResult()
    failure = validation.metric_validations_per_slice.add().failures.add()
    failure.metric_key.name = "accuracy"
    failure.metric_threshold.value_threshold.lower_bound.value = 0.85
    failure.metric_value.double_value.value = value
    assert list(evaluations.failures(validation)) == [f"accuracy {told}, and at least 0.85 is wanted"]
