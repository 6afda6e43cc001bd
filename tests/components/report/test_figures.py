import pytest

from components.report.numbers import numbers
from components.report.plots import figures
from components.settings import ReportOptions


@pytest.mark.parametrize("name", ["a $x{$", "$5 & $6", "100 $", r"\$"])
def test_a_class_is_named_as_it_is_though_its_name_looks_like_a_formula(predictions, evaluation, name):
    classes = (name, "Miss")
    drawn = figures(numbers(predictions(60, classes=classes), evaluation(classes), ReportOptions(target=name)))
    shown = name.replace("&", "&amp;")
    assert f">{shown}<" in drawn["roc"]
    assert f">{shown} among them<" in drawn["thresholds"]
