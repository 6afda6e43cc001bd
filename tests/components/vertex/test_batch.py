import pytest

from components.vertex.batch import table
from marco_model.store import Object

SCORED = {"classes": ["Clear", "Crystals"], "scores": [0.25, 0.75]}
FAILED = {"error": "does not decode"}


@pytest.mark.parametrize(
    ("predictions", "scores", "errors"),
    [
        (
            [FAILED, SCORED],
            ["gs://b/1.png,,,,Crystals,0.2500000,0.7500000,marco-3,,,"],
            ["gs://b/0.png,does not decode"],
        ),
        (
            [SCORED | {"version": "v"}, FAILED],
            ["gs://b/0.png,,,,Crystals,0.2500000,0.7500000,v,,,"],
            ["gs://b/1.png,does not decode"],
        ),
        ([FAILED, {}], [], ["gs://b/0.png,does not decode", "gs://b/1.png,Vertex AI gave no prediction"]),
    ],
)
def test_predictions_without_scores_are_failures_with_their_reason(tmp_path, predictions, scores, errors):
    images = [Object(f"gs://b/{number}.png", 1, 0.0, 1, "") for number in range(len(predictions))]
    by_uri = {image.uri: prediction for image, prediction in zip(images, predictions, strict=True)}
    outcome = table(images, by_uri, {}, "marco-3", tmp_path / "scores.csv")
    assert outcome.failed == len(errors)
    assert (tmp_path / "scores.csv").read_text().splitlines()[1:] == scores
    assert (tmp_path / "scores.errors.csv").read_text().splitlines()[1:] == errors
