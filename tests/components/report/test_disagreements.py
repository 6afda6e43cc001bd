import numpy as np
import pytest

from components.report.numbers import disagreements, errors
from marco_model.labels import CLASSES


@pytest.fixture
def judged(predictions):
    table = predictions(200)
    return table, np.stack(list(table["scores"])), table["label"].to_numpy(int)


def test_labels_with_the_lowest_scores_come_first_and_correct_predictions_are_left_out(judged):
    table, scores, labels = judged
    found = disagreements(table, scores, CLASSES, 10)
    belief = {row: scores[row, labels[row]] for row in range(200) if scores[row].argmax() != labels[row]}
    assert [image["row"] for image in found] == sorted(belief, key=belief.get)[:10]
    for image in found:
        row = image["row"]
        assert image["image_id"] == 1000 + row
        assert image["filename"] == table["filename"][row]
        assert (image["institution"], image["imager"]) == (table["institution"][row], table["imager"][row])
        assert (CLASSES.index(image["label"]), CLASSES.index(image["predicted"])) == (labels[row], scores[row].argmax())
        assert image["score"] == pytest.approx(scores[row].max(), abs=1e-6)
        assert image["label_score"] == pytest.approx(scores[row, labels[row]], abs=1e-6)
    assert disagreements(table, scores, CLASSES, 0) == []


def test_errors_are_counted_and_shown_by_the_images_with_the_highest_scores(judged):
    table, scores, labels = judged
    found = errors(table, scores, CLASSES, "Crystals", 12, 2)
    predicted = scores.argmax(axis=1)
    assert sum(kind["count"] for kind in found) == (predicted != labels).sum()
    for kind in found:
        true, predicted_as = CLASSES.index(kind["label"]), CLASSES.index(kind["predicted"])
        rows = [row for row in range(200) if (labels[row], predicted[row]) == (true, predicted_as)]
        assert kind["count"] == len(rows)
        assert kind["share"] == pytest.approx(len(rows) / (labels == true).sum(), abs=1e-6)
        surest = sorted(rows, key=lambda row: -scores[row, predicted_as])[:2]
        assert [image["row"] for image in kind["images"]] == surest


def test_errors_about_the_target_come_first_and_the_number_of_kinds_is_limited(judged):
    table, scores, _ = judged
    found = errors(table, scores, CLASSES, "Crystals", 7, 1)
    assert [kind["label"] for kind in found[:3]] == ["Crystals"] * 3
    assert [kind["predicted"] for kind in found[3:6]] == ["Crystals"] * 3
    for part in (found[:3], found[3:6]):
        assert [kind["count"] for kind in part] == sorted((kind["count"] for kind in part), reverse=True)
    assert len(found) == 7


def test_a_model_without_errors_shows_none(predictions):
    table = predictions(20)
    scores = np.eye(4, dtype=np.float32)[table["label"].to_numpy(int)]
    assert errors(table, scores, CLASSES, "Crystals", 12, 1) == []
    assert disagreements(table, scores, CLASSES, 5) == []
