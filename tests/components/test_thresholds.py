import pytest

from components.evaluations import auc_classes, check_thresholds, metric_names
from marco_model.errors import InputError
from marco_model.labels import CLASSES


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [({"acuracy": 0.5}, "acuracy.*names no metric; choose from accuracy"), ({"accuracy": 94.5}, "accuracy.*94.5")],
)
def test_a_threshold_that_cannot_be_met_is_refused(thresholds, message):
    with pytest.raises(InputError, match=message):
        check_thresholds(thresholds, CLASSES)


def test_every_metric_takes_a_threshold():
    check_thresholds(dict.fromkeys(metric_names(CLASSES), 0.5), CLASSES)
    by_class = {f"{kind}/{name}" for kind in ("precision", "recall") for name in CLASSES}
    assert {"accuracy", *by_class, "auc/Crystals", "auc/Precipitate"} <= set(metric_names(CLASSES))
    assert "auc/Clear" not in metric_names(CLASSES)


def test_auc_is_computed_for_the_papers_two_classes_or_for_all_of_another_scheme():
    assert auc_classes(list(CLASSES)) == ("Crystals", "Precipitate")
    assert auc_classes(["Hit", "Miss"]) == ("Hit", "Miss")
