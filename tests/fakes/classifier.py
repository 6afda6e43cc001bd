"""What classifiers that tests script have in common with `marco_model.LoadedClassifier`."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Scripted:
    """A classifier without a reference of training pictures and a time course; `score` is the test's."""

    temperature, reference, time_course, preparation = 1.0, None, None, None

    def score(self, images: Sequence[Any]) -> np.ndarray:
        raise NotImplementedError

    def described(self, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.score(images), np.zeros(len(images), np.float32), np.zeros((len(images), 0), np.float32)
