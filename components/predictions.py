"""Runs a model once over the examples, on Beam's workers, and writes `components.prediction_table`."""

from collections.abc import Iterator, Sequence

import apache_beam as beam
import numpy as np
import pandas as pd
import tensorflow as tf

from components import evaluations, prediction_table
from marco_data import contract
from marco_model import errors, preprocessing, saved_model

_TEXTS = (contract.FILENAME, *evaluations.SLICES)
_NUMBERS = (contract.IMAGE_ID, contract.LABEL)


class Predict(beam.DoFn):
    """From a TFRecord file of ExampleGen's output to its rows of the table, through the signature `serving_examples`.

    TensorFlow reads and unpacks ahead while the model works; at most three batches of images are in memory.
    """

    def __init__(self, model_path: str, batch_size: int, average: int = 1):
        self._model_path = model_path
        self._batch_size = batch_size
        self._average = average

    def setup(self) -> None:
        """Loads the model once per worker."""
        spec = {name: tf.io.FixedLenFeature([], tf.string) for name in _TEXTS}
        spec |= {name: tf.io.FixedLenFeature([], tf.int64) for name in _NUMBERS}
        spec[contract.PLATE] = tf.io.FixedLenFeature([], tf.string, default_value="")
        self._model = saved_model.load(self._model_path)
        self._score = self._mean_scores if self._average > 1 else self._model.signatures["serving_examples"]
        self._parse = tf.function(
            lambda serialized: tf.io.parse_example(serialized, spec), input_signature=[tf.TensorSpec([None], tf.string)]
        )

    def _mean_scores(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the signature does for the mean over the views of each image."""
        encoded = {contract.ENCODED: tf.io.FixedLenFeature([], tf.string)}
        images = self._model.images(tf.io.parse_example(examples, encoded)[contract.ENCODED])
        views = preprocessing.views(images, self._average)
        return {"scores": tf.add_n([tf.nn.softmax(self._model.logits(view)) for view in views]) / self._average}

    def process(self, file: str) -> Iterator[pd.DataFrame]:
        """Yields the rows of the records of `file`, if it has any.

        Raises `InputError` if a score is not finite: the argmax of such scores would pass for a class.
        """
        records = tf.data.TFRecordDataset(file)
        shard, scored = file.rpartition("/")[2], 0
        features: dict[str, list[np.ndarray]] = {name: [] for name in (*_TEXTS, *_NUMBERS, contract.PLATE)}
        scores: list[np.ndarray] = []
        for serialized in preprocessing.without_autotuning(records.batch(self._batch_size).prefetch(1)):
            scores.append(self._score(examples=serialized)["scores"].numpy())
            if not np.isfinite(scores[-1]).all():
                within = int((~np.isfinite(scores[-1])).any(axis=1).argmax())
                raise errors.InputError(
                    f"the model at {self._model_path} gives record {scored + within} of {shard} scores that are not "
                    f"finite ({', '.join(str(score) for score in scores[-1][within])}); train it again"
                )
            for name, values in self._parse(serialized).items():
                features[name].append(values.numpy())
            scored += len(scores[-1])
        if scores:
            joined = {name: np.concatenate(batches) for name, batches in features.items()}
            yield _rows(shard, joined, np.concatenate(scores))


def write_table(
    pipeline: beam.Pipeline, files: Sequence[str], model_path: str, batch_size: int, output: str, average: int = 1
) -> None:
    """Adds to `pipeline` the scoring of every record of `files` by the SavedModel at `model_path`, as one table.

    Workers share the files among them; the one that writes holds the whole table once. `output`: a folder or a URI.
    `average`: scores are the mean over so many views of an image (`marco_model.preprocessing.views`).
    """
    path = f"{output}/{prediction_table.PREDICTIONS_FILE}"
    label = f" over {average} views" if average > 1 else ""
    _ = (
        pipeline
        | f"Files{label}" >> beam.Create(list(files))
        | f"Spread{label}" >> beam.Reshuffle()
        | f"Predict{label}" >> beam.ParDo(Predict(model_path, batch_size, average))
        | f"Gather{label}" >> beam.combiners.ToList()
        | f"Write{label}" >> beam.Map(lambda parts: prediction_table.write(_together(parts), path))
    )


def _rows(shard: str, features: dict[str, np.ndarray], scores: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "shard": shard,
            "index": np.arange(len(scores), dtype=np.int32),
            "image_id": features[contract.IMAGE_ID],
            "filename": _text(features[contract.FILENAME]),
            "label": features[contract.LABEL].astype(np.int16),
            "institution": _text(features[contract.INSTITUTION]),
            "imager": _text(features[contract.IMAGER]),
            "scores": list(scores),
            "plate": _text(features[contract.PLATE]),
        }
    )


def _text(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8", "replace") for value in values.tolist()]


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(prediction_table.COLUMNS))
