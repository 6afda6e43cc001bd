"""What a classifier that never saw an image's label would say: logistic regression on embeddings, fold by fold.

A network that was trained on wrong labels may have learned them by heart, and then agrees with them. Here each image is
judged by a model that was fitted on the other folds only (Northcutt et al. 2021, "Confident Learning", J. Artif.
Intell. Res. 70, 1373, judge labels out of fold for the same reason).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marco_data.file_names import drop_place
from marco_data.splits import hashed_draw
from marco_model.errors import InputError

FITTED_AT_MOST = 20_000
"""Images that one fold's model is fitted on; more change little and cost time in proportion."""
REGULARIZATION = 0.01
"""scikit-learn's C on standardized features: strong, since features are many and some labels wrong."""
REPEATS = 3
"""How often folds are drawn anew; the mean of the probabilities finds more wrong labels than one draw does."""
_IMAGES_A_BLOCK = 4096


def check_folds(folds: int) -> None:
    """Raises `InputError` for fewer than two folds."""
    if folds < 2:
        raise InputError(f"--folds is {folds}; give 2 or more, or 0 for the model's own scores")


def cross_probabilities(
    embeddings: np.ndarray, labels: np.ndarray, classes: int, folds: int, names: Sequence[tuple[str, int]]
) -> np.ndarray:
    """Returns probabilities, float32 [n, classes], each image's by a model that was fitted without its fold.

    `embeddings`: float32 [n, features]. `labels`: int [n]. `names`: file name and id of each, which decide its fold
    (`fold_of`). Raises `InputError` for fewer than two folds, or where a fold leaves images of one class alone.
    """
    check_folds(folds)
    found = np.zeros((len(labels), classes), np.float32)
    for repeat in range(REPEATS):
        fold = fold_of(names, folds, repeat)
        for number in range(folds):
            held_out, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if len(np.unique(labels[others])) < 2:
                raise InputError(
                    f"{len(labels)} images are too few for {folds} folds; give fewer --folds, or more images"
                )
            _add_probabilities(found, embeddings, labels, held_out, _some_of(others))
    return found / REPEATS


def _add_probabilities(
    found: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, held_out: np.ndarray, fitted_on: np.ndarray
) -> None:
    """Adds to the rows `held_out` of `found` what a model says of them that was fitted on other rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=1000))
    model.fit(embeddings[fitted_on], labels[fitted_on])
    for start in range(0, len(held_out), _IMAGES_A_BLOCK):
        rows = held_out[start : start + _IMAGES_A_BLOCK]
        found[np.ix_(rows, model.classes_)] += model.predict_proba(embeddings[rows])


def fold_of(names: Sequence[tuple[str, int]], folds: int, repeat: int = 0) -> np.ndarray:
    """Returns each image's fold, int [n], drawn by a hash of its plate, or of its id, anew for each `repeat`.

    Images of a plate, which may show one drop several times under one wrong label, share a fold where file names tell
    plates and these are four times as many as folds.
    """
    plates = [drop_place(filename).plate for filename, _ in names]
    by_plate = len({plate for plate in plates if plate}) >= 4 * folds
    keys = [
        f"fold {repeat} plate {plate}" if by_plate and plate else f"fold {repeat} image {image_id}"
        for plate, (_, image_id) in zip(plates, names, strict=True)
    ]
    return np.array([int(hashed_draw(key) * folds) for key in keys])


def _some_of(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= FITTED_AT_MOST:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, FITTED_AT_MOST, replace=False))
