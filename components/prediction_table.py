"""The scores of every evaluation example, as one Parquet file beside `metrics.json`; needs neither TFX nor Beam.

One row per example, sorted by (`shard`, `index`): `shard` str (base name of the TFRecord file in ExampleGen's output),
`index` int32 (the record in it), `image_id` int64, `filename` str, `label` int16 (class index), `institution` str,
`imager` str, `scores` list of float32 (softmax, in the order of the classes), `plate` str (the record's, else empty).
`shard` and `index` lead back to the image itself (`encoded_images`).
"""

import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marco_model import errors, store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

PREDICTIONS_FILE = "predictions.parquet"
COLUMNS = ("shard", "index", "image_id", "filename", "label", "institution", "imager", "scores", "plate")


def read(evaluation_uri: str) -> "pd.DataFrame":
    """Returns the table (see above) of an evaluation artifact; raises `InputError` if there is none, or another one.

    `scores` holds one array per row; `scores_of` returns them together.
    """
    path = f"{evaluation_uri.rstrip('/')}/{PREDICTIONS_FILE}"
    missing = f"no predictions at {evaluation_uri}: {PREDICTIONS_FILE} is missing; run the Evaluator again"
    table = read_parquet(store.read_bytes(path, missing), path)
    message = f"{path} is not a table of predictions ({{}}); run the Evaluator again"
    with errors.translated(errors.InputError, message, Exception):
        frame = table.to_pandas()
        scores_of(frame[list(COLUMNS)])
    return frame


def read_parquet(content: bytes, name: str) -> "pyarrow.Table":
    """Returns the table of a Parquet file, which may come from anybody; raises `InputError` if it cannot be read.

    `name`: of the file, for the message. pyarrow below 14.0.1, which TFX 1.16 requires, would execute a program that
    the file's schema holds (CVE-2023-47248), and later ones warn of it: a file with such a column is refused.
    """
    if sys.version_info < (3, 11):
        import pyarrow_hotfix  # noqa: F401
    import pyarrow.parquet

    message = f"{name} is not a Parquet file that can be read: {{}}"
    with errors.translated(errors.InputError, message, Exception), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content))


def scores_of(frame: "pd.DataFrame") -> np.ndarray:
    """Returns the scores of a table, float32 [rows, classes]; [0, 0] for an empty table."""
    if not len(frame):
        return np.zeros([0, 0], np.float32)
    return np.stack(list(frame["scores"])).astype(np.float32)


def write(frame: "pd.DataFrame", path: str | Path) -> None:
    """Writes a table with the columns above, sorted, to a path or URI, where it appears only when complete."""
    import pyarrow.parquet

    types = {
        "index": pyarrow.int32(),
        "image_id": pyarrow.int64(),
        "label": pyarrow.int16(),
        "scores": pyarrow.list_(pyarrow.float32()),
    }
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS])
    ordered = frame.sort_values(["shard", "index"], ignore_index=True)
    columns = {name: ordered[name].tolist() for name in COLUMNS if name != "scores"}
    table = pyarrow.Table.from_pydict({**columns, "scores": list(scores_of(ordered))}, schema=schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    store.write_bytes(str(path), buffer.getvalue())


def encoded_images(examples_uri: str, split: str, rows: "pd.DataFrame") -> list[bytes]:
    """Returns the encoded image (JPEG or PNG) of each of `rows`, in their order; raises `InputError` if one is missing.

    `examples_uri`: ExampleGen's output. `rows`: with `shard` (base name of a TFRecord file of `split`) and `index` (the
    record in it).
    """
    import tensorflow as tf

    from marco_model import example_files, training_input

    images: dict[tuple[str, int], bytes] = {}
    for shard, indices in rows.groupby("shard")["index"]:
        path = f"{examples_uri.rstrip('/')}/Split-{split}/{shard}"
        if not store.exists(path):
            raise errors.InputError(f"{path} is not there; give the examples that were judged")
        records = example_files.read_index([path])
        read = training_input.reader(records)
        for index in sorted(set(indices)):
            if index >= len(records):
                raise errors.InputError(f"{path} has no record {index}; give the examples that were judged")
            images[shard, index] = bytes(read(tf.constant(index, tf.int64))[0].numpy())
    return [images[place] for place in zip(rows["shard"], rows["index"], strict=True)]
