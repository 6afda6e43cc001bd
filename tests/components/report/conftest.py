"""Predictions and metrics as the Evaluator writes them."""

import numpy as np
import pandas as pd
import pytest

from marco_model.labels import CLASSES

PLACES = (("CSIRO", "Rigaku Minstrel"), ("CSIRO", "Formulatrix Rock Imager"), ("Merck", "Formulatrix Rock Imager"))


def predictions(count=300, classes=CLASSES, seed=0, ties=False):
    """Returns a table whose scores follow the labels most of the time and with varying confidence."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), count)
    logits = rng.normal(size=[count, len(classes)])
    logits[np.arange(count), labels] += 1.5
    scores = np.exp(logits * 0.6)
    if ties:
        scores = np.round(scores) + 1
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    places = [PLACES[index] for index in rng.integers(0, len(PLACES), count)]
    return pd.DataFrame(
        {
            "shard": "data_tfrecord-00000-of-00001",
            "index": np.arange(count, dtype=np.int32),
            "image_id": np.arange(count) + 1000,
            "filename": [f"03c3_G{index}_ImagerDefaults_6.jpg" for index in range(count)],
            "label": labels.astype(np.int16),
            "institution": [place[0] for place in places],
            "imager": [place[1] for place in places],
            "scores": list(scores),
            "plate": "",
        }
    )


def evaluation(classes=CLASSES, **changes):
    """Returns the part of `metrics.json` that a report reads."""
    metrics = {"classes": list(classes), "blessed": True, "thresholds": {"accuracy": 0.65}, "failures": []}
    return {**metrics, **changes}


@pytest.fixture(name="predictions", scope="session")
def predictions_fixture():
    """Returns `predictions(count, classes, seed, ties) -> DataFrame`."""
    return predictions


@pytest.fixture(name="evaluation", scope="session")
def evaluation_fixture():
    """Returns `evaluation(classes, …) -> dict`."""
    return evaluation
