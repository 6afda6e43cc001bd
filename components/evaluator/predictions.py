"""The model run over the examples, as TFMA extracts without images: one for each slice of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.extractors import extractor, slice_key_extractor

from components.evaluator.names import SLICES
from marco_data import contract


def slice_batch(labels: np.ndarray, scores: np.ndarray, features: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yields the extracts of a batch: all of it, then the examples of each value of each feature.

    `labels`: int64 [n]; `scores`: float32 [n, classes]; `features`: name → bytes [n].
    """
    yield _extract(labels, scores, ())
    for name in SLICES:
        for value in np.unique(features[name]):
            chosen = features[name] == value
            yield _extract(labels[chosen], scores[chosen], ((name, value.decode()),))


def _extract(labels: np.ndarray, scores: np.ndarray, slice_key: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    keys = np.empty([1], object)
    keys[0] = slice_key
    return {
        constants.INPUT_KEY: b"",  # TFMA counts its bytes, and warns about every extract that has none.
        constants.LABELS_KEY: labels,
        constants.PREDICTIONS_KEY: scores,
        constants.SLICE_KEY_TYPES_KEY: keys,
    }


class Predict(beam.DoFn):
    """From a TFRecord file of ExampleGen's output to extracts, through the signature `serving_examples`.

    TensorFlow reads and unpacks ahead while the model works; at most three batches of images are in memory.
    """

    def __init__(self, model_path: str, batch_size: int):
        self._model_path = model_path
        self._batch_size = batch_size

    def setup(self) -> None:
        """Loads the model once a worker."""
        import tensorflow as tf

        self._model = tf.saved_model.load(self._model_path)
        self._score = self._model.signatures["serving_examples"]

    def process(self, file: str) -> Iterator[dict[str, Any]]:
        """Yields the extracts of every batch of `file`."""
        import tensorflow as tf

        spec = {name: tf.io.FixedLenFeature([], tf.string) for name in SLICES}
        spec[contract.LABEL] = tf.io.FixedLenFeature([], tf.int64)
        records = tf.data.TFRecordDataset(file, compression_type="GZIP" if file.endswith(".gz") else "")
        batches = records.batch(self._batch_size)
        batches = batches.map(lambda serialized: (serialized, tf.io.parse_example(serialized, spec)))
        for serialized, parsed in batches.prefetch(1):
            scores = self._score(examples=serialized)["scores"].numpy()
            features = {name: parsed[name].numpy().astype(bytes) for name in SLICES}
            yield from slice_batch(parsed[contract.LABEL].numpy(), scores, features)


def extractors() -> list[Any]:
    """Returns what TFMA needs between these extracts and its evaluators: a stage by the name they wait for."""
    return [
        extractor.Extractor(
            stage_name=slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME, ptransform=beam.Map(lambda extract: extract)
        )
    ]
