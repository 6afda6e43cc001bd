"""Embeddings and scores of encoded images from one pass through the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marco_model.errors import InputError

Described = tuple[np.ndarray, np.ndarray]


class Describer:
    """A classifier that tells what it sees beside what it says.

    Raises InputError where the folder holds no classifier, or one exported without its features.
    """

    def __init__(self, model: Path) -> None:
        from marco_model.load import load

        self._classifier = load(model)
        self._both = _in_one_pass(self._classifier)

    def __call__(self, encoded: Sequence[bytes]) -> list[Described | str]:
        """Returns embedding, float32 [d], and scores, float32 [classes], of each image, or the reason why not."""
        if not encoded:
            return []
        try:
            images = self._classifier.images(encoded)
        except InputError as error:
            if len(encoded) == 1:
                return [str(error)]
            # One at fault costs only itself.
            return [result for one in encoded for result in self([one])]
        embeddings, scores = self._both(images)
        return list(zip(embeddings.numpy(), scores.numpy(), strict=True))


def _in_one_pass(classifier: Any) -> Callable:
    """Joins the two functions that the model has into one of constants.

    Grappler merges what is computed twice from the same constants, and not what is computed from variables: so the
    network runs once for both.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    logits, embeddings = classifier.logits, classifier.embeddings

    @tf.function(autograph=False)
    def both(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return embeddings(images), tf.nn.softmax(logits(images))

    shape = classifier.images([]).shape
    concrete = both.get_concrete_function(tf.TensorSpec([None, *shape[1:]], tf.float32))
    frozen = convert_variables_to_constants_v2(concrete)
    return lambda images: frozen(tf.constant(images))
