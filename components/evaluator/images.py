"""The images behind rows of the prediction table, out of the examples that were judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marco_data import contract
from marco_model.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def encoded_images(examples_uri: str, split: str, rows: pd.DataFrame) -> list[bytes]:
    """Returns the encoded image (JPEG or PNG) of each of `rows`, in their order.

    `examples_uri`: ExampleGen's output. `rows`: with `shard` (base name of a TFRecord file of `split`) and `index` (the
    record in it), as in `components.evaluator.prediction_table`. Reads each file once, up to its last wanted record.

    Raises:
        InputError: a file has no such record.
    """
    shards, indices = rows["shard"].tolist(), rows["index"].tolist()
    found: dict[tuple[str, int], bytes] = {}
    for shard in sorted(set(shards)):
        wanted = {int(index) for name, index in zip(shards, indices, strict=True) if name == shard}
        path = f"{examples_uri.rstrip('/')}/Split-{split}/{shard}"
        found |= {(shard, index): encoded for index, encoded in _records(path, wanted).items()}
    return [found[shard, int(index)] for shard, index in zip(shards, indices, strict=True)]


def _records(path: str, wanted: set[int]) -> dict[int, bytes]:
    import tensorflow as tf

    from marco_model.datasets import untuned

    last = max(wanted)
    records = tf.data.TFRecordDataset(path, compression_type="GZIP" if path.endswith(".gz") else "").take(last + 1)
    chosen = tf.constant(sorted(wanted), tf.int64)
    records = records.enumerate().filter(lambda index, _: tf.reduce_any(chosen == index))
    feature = {contract.ENCODED: tf.io.FixedLenFeature([], tf.string)}
    images = records.map(lambda index, data: (index, tf.io.parse_single_example(data, feature)[contract.ENCODED]))
    try:
        found = {int(index): bytes(encoded) for index, encoded in untuned(images).as_numpy_iterator()}
    except tf.errors.NotFoundError:
        raise InputError(f"{path} is not there; give the examples that were judged") from None
    if missing := wanted - set(found):
        raise InputError(f"{path} has no record {min(missing)}; give the examples that were judged")
    return found
