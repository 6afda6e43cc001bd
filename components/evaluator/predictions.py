"""The model run once over the examples, by Beam's workers: a table of scores, from which everything else is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import apache_beam as beam
import numpy as np

from components.evaluator import prediction_table
from components.evaluator.names import SLICES
from marco_data import contract
from marco_model.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 8192
"""Rows in one element."""
_TEXTS = (contract.FILENAME, *SLICES)
_NUMBERS = (contract.IMAGE_ID, contract.LABEL)


class Predicted(NamedTuple):
    """Consecutive records of one TFRecord file.

    `shard`: the file's base name; `first`: the index of the first record in it; `features`: name → int64 [n] or
    bytes [n], of id, label, file name, institution and imager; `scores`: float32 [n, classes].
    """

    shard: str
    first: int
    features: dict[str, np.ndarray]
    scores: np.ndarray


class Predict(beam.DoFn):
    """From a TFRecord file of ExampleGen's output to `Predicted`, through the signature `serving_examples`.

    TensorFlow reads and unpacks ahead while the model works; at most three batches of images are in memory.
    """

    def __init__(self, model_path: str, batch_size: int):
        self._model_path = model_path
        self._batch_size = batch_size

    def setup(self) -> None:
        """Loads the model once a worker."""
        import tensorflow as tf

        spec = {name: tf.io.FixedLenFeature([], tf.string) for name in _TEXTS}
        spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in _NUMBERS}
        self._model = tf.saved_model.load(self._model_path)
        self._score = self._model.signatures["serving_examples"]
        self._parse = tf.function(
            lambda serialized: tf.io.parse_example(serialized, spec), input_signature=[tf.TensorSpec([None], tf.string)]
        )

    def process(self, file: str) -> Iterator[Predicted]:
        """Yields what the model says of the records of `file`, up to 8,192 of them at a time.

        Raises `InputError` where a score is not finite: an argmax of such scores would pass for a class.
        """
        import tensorflow as tf

        from marco_model.datasets import untuned

        records = tf.data.TFRecordDataset(file, compression_type="GZIP" if file.endswith(".gz") else "")
        shard, first, parts = file.rpartition("/")[2], 0, []
        for serialized in untuned(records.batch(self._batch_size).prefetch(1)):
            scores = self._score(examples=serialized)["scores"].numpy()
            if not np.isfinite(scores).all():
                record = first + int((~np.isfinite(scores)).any(axis=1).argmax())
                raise InputError(
                    f"the model at {self._model_path} gives record {record} of {shard} scores that are not finite "
                    f"({', '.join(str(score) for score in scores[record - first])}); train it again"
                )
            features = {name: values.numpy() for name, values in self._parse(serialized).items()}
            parts.append(Predicted(shard, first, features, scores))
            first += len(scores)
            if first - parts[0].first >= _ROWS:
                yield _joined(parts)
                parts = []
        if parts:
            yield _joined(parts)


def _joined(parts: Sequence[Predicted]) -> Predicted:
    features = {
        name: np.concatenate([part.features[name] for part in parts]).astype(bytes if name in _TEXTS else np.int64)
        for name in parts[0].features
    }
    return Predicted(parts[0].shard, parts[0].first, features, np.concatenate([part.scores for part in parts]))


def write_table(pipeline: beam.Pipeline, files: Sequence[str], model_path: str, batch_size: int, output: str) -> None:
    """Adds to `pipeline`: the SavedModel at `model_path` over every record of `files`, as one table in `output`.

    Workers share the files among them; the one that writes holds the whole table (`components.evaluator.
    prediction_table`) once. `output` may be a URI.
    """
    path = f"{output}/{prediction_table.PREDICTIONS_FILE}"
    _ = (
        pipeline
        | "Files" >> beam.Create(list(files))
        | "Spread" >> beam.Reshuffle()
        | "Predict" >> beam.ParDo(Predict(model_path, batch_size))
        | "Gather" >> beam.combiners.ToList()
        | "Write" >> beam.Map(lambda parts: prediction_table.write(frame(parts), path))
    )


def frame(parts: Iterable[Predicted]) -> pd.DataFrame:
    """Returns the table of `components.evaluator.prediction_table`, not yet sorted."""
    import pandas as pd

    columns = ["shard", "index", "image_id", "filename", "label", "institution", "imager", "scores"]
    tables = [
        pd.DataFrame(
            {
                "shard": part.shard,
                "index": np.arange(part.first, part.first + len(part.scores), dtype=np.int32),
                "image_id": part.features[contract.IMAGE_ID],
                "filename": _text(part.features[contract.FILENAME]),
                "label": part.features[contract.LABEL].astype(np.int16),
                "institution": _text(part.features[contract.INSTITUTION]),
                "imager": _text(part.features[contract.IMAGER]),
                "scores": list(part.scores),
            }
        )
        for part in parts
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _text(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8", "replace") for value in values.tolist()]
