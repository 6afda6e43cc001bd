"""An evaluation: its table of predictions, the metrics of every slice of it, thresholds on them, and `metrics.json`.

Slices are all images, those of each institution, of each imager, and of each pair of both. `metrics.json` holds
`model` (its fingerprint), `classes`, `blessed`, `thresholds`, `failures` and `slices`: kind → value → `count`, each
metric by its name (null where undefined) and `confusion_matrix`, rows being true classes.

`predictions.parquet` has one row per example, sorted by (`shard`, `index`): `shard` str (base name of the TFRecord file
in ExampleGen's output), `index` int32 (the record in it), `image_id` int64, `filename` str, `label` int16 (class
index), `institution` str, `imager` str, `scores` list of float32 (softmax, in the order of the classes), `plate` str
(the record's, else empty). `shard` and `index` lead back to the image itself (`encoded_images`).
"""

import io
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from marco_data import contract, places
from marco_model import errors, labels, store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

METRICS_FILE = "metrics.json"
SLICES = (contract.INSTITUTION, contract.IMAGER)
"""The columns by whose values images are sliced. An imager may do well in one place and not in another: pairs too."""
TIMES = " × "
CROSS_NAME = TIMES.join(SLICES)
"""The kind of the slices by pairs: `institution × imager`, one of which is `CSIRO × Rigaku Minstrel`."""
OVERALL, ALL = "overall", "all"
AUC_CLASSES = ("Crystals", "Precipitate")
"""The classes of the four whose ROC Bruno et al. 2018 report."""


class SliceKey(NamedTuple):
    """`kind`: `overall` or a column of `SLICES` or `CROSS_NAME`; `value`: `all`, or what its images share there."""

    kind: str
    value: str

    @property
    def name(self) -> str:
        """What a message and `decision.json` call it, such as `imager/Rigaku Minstrel`."""
        return f"{self.kind}/{self.value}"


def slice_masks(table: "pd.DataFrame", cross: bool = True) -> Iterator[tuple[SliceKey, np.ndarray]]:
    """Yields each slice but the one of all images, with the rows that are in it, bool [rows].

    Kinds come in the order of `SLICES`, values in that of their text; with `cross` the pairs of both follow.
    """
    columns = {kind: table[kind].to_numpy().astype(str) for kind in SLICES}
    if cross:
        columns[CROSS_NAME] = np.array([TIMES.join(pair) for pair in zip(*columns.values(), strict=True)], str)
    for kind, column in columns.items():
        values, codes = np.unique(column, return_inverse=True)
        for code, value in enumerate(values):
            yield SliceKey(kind, str(value)), codes == code


def plates(table: "pd.DataFrame") -> np.ndarray:
    """Returns the number of each row's plate, int64 [rows]; a row without a plate has a number of its own.

    The plate is the record's, or else the one that the name of its file states.
    """
    columns = zip(table["institution"], table["filename"], table["plate"], strict=True)
    names = [
        f"{institution}/{plate}" if (plate := recorded or places.place_of(filename).plate) else f"image {row}"
        for row, (institution, filename, recorded) in enumerate(columns)
    ]
    return np.unique(np.array(names, str), return_inverse=True)[1]


Slices = dict[str, dict[str, dict[str, Any]]]
"""The `slices` of `metrics.json`: kind → value → numbers."""


def evaluate(table: "pd.DataFrame", classes: Sequence[str]) -> tuple[dict[str, float], Slices]:
    """Returns the metrics of all images, as `metrics_of` does, and the slices, sorted by their values in each kind.

    `table`: a `components.evaluations` of one row or more.
    """
    true, scores = table["label"].to_numpy(), scores_of(table)
    slices: Slices = {kind: {} for kind in (OVERALL, *SLICES, CROSS_NAME)}
    overall: dict[str, float] = {}
    for key, mask in [(SliceKey(OVERALL, ALL), np.ones(len(table), bool)), *slice_masks(table)]:
        confusion = confusion_matrix(true[mask], scores[mask].argmax(axis=1), len(classes))
        metrics = metrics_of(confusion, true[mask], scores[mask], classes)
        if key.kind == OVERALL:
            overall = metrics
        numbers = {name: None if math.isnan(share) else share for name, share in sorted(metrics.items())}
        count = int(confusion.sum())
        slices[key.kind][key.value] = {"count": count, **numbers, "confusion_matrix": confusion.tolist()}
    return overall, slices


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns int64 [true class, predicted class] of class indices, int [n] each, n at least 1."""
    from sklearn import metrics

    return np.asarray(metrics.confusion_matrix(true, predicted, labels=range(classes)))


def area_under_roc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Returns how often a positive scores above a negative, ties counted half; NaN without both kinds.

    `positive`: bool [n]; `scores`: float [n].
    """
    if positive.all() or not positive.any():
        return float("nan")
    from sklearn import metrics

    return float(metrics.roc_auc_score(positive, scores))


def auc_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes of which AUC is taken: the paper's two of MARCO's four, all of any other scheme."""
    return AUC_CLASSES if tuple(classes) == labels.CLASSES else tuple(classes)


def metrics_of(confusion: np.ndarray, true: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Returns each metric, a share, by its name; NaN where undefined. The only place where metrics are defined.

    `confusion`: the `confusion_matrix` of `true`, int [n], and the highest of `scores`, float [n, classes].
    """

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else float("nan")

    hits, predicted, actual = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    index = {name: number for number, name in enumerate(classes)}
    return {
        "accuracy": share(hits.sum(), confusion.sum()),
        **{f"precision/{name}": share(hits[i], predicted[i]) for name, i in index.items()},
        **{f"recall/{name}": share(hits[i], actual[i]) for name, i in index.items()},
        **{f"auc/{name}": area_under_roc(true == index[name], scores[:, index[name]]) for name in auc_classes(classes)},
    }


def compare_averaged(
    single: "pd.DataFrame", averaged: "pd.DataFrame", classes: Sequence[str], views: int
) -> dict[str, Any]:
    """Returns what averaging over views changes, as `averaged` of `metrics.json`.

    `single`, `averaged`: tables of the same images. The content: `views`, and in `metrics` for each metric that is a
    share of images right (`accuracy`, `recall/NAME`) `single`, `averaged`, `difference`, and the limits `low` and
    `high` of the difference, paired by image and plate, at 95 %.
    """
    from components import significance

    true, plate = single["label"].to_numpy(), plates(single)
    right = [scores_of(table).argmax(axis=1) == true for table in (averaged, single)]
    masks = {"accuracy": np.ones(len(true), bool)}
    masks |= {f"recall/{name}": true == number for number, name in enumerate(classes)}
    rows = []
    for name, mask in masks.items():
        if mask.any():
            shares = [float(part[mask].mean()) for part in right]
            counts = significance.pairs(right[0][mask], right[1][mask], plate[mask])
            low, high, _ = significance.paired_interval(counts, 0.95)
            limits = {"difference": counts.difference, "low": low, "high": high}
            rows.append({"metric": name, "averaged": shares[0], "single": shares[1], **limits})
    return {"views": views, "metrics": rows}


def metric_names(classes: Sequence[str]) -> list[str]:
    """Returns the names of the metrics, such as `accuracy`, `recall/Crystals`, `auc/Crystals`."""
    count = len(classes)
    return list(metrics_of(np.zeros([count, count], int), np.zeros(0, int), np.zeros([0, count]), classes))


def check_thresholds(thresholds: Mapping[str, float], classes: Sequence[str]) -> None:
    """Raises `InputError` for a threshold that could never be met or checked."""
    known = metric_names(classes)
    for name, bound in thresholds.items():
        if name not in known:
            raise errors.InputError(f"threshold {name!r} names no metric; choose from {', '.join(known)}")
        if not 0.0 <= bound <= 1.0:
            raise errors.InputError(f"threshold {name!r} is {bound}; give a share between 0 and 1")


def missed_thresholds(metrics: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:
    """Returns a sentence for each threshold that `metrics` do not reach; an undefined metric reaches none.

    `thresholds`: metric → smallest value that is good enough, such as `{"accuracy": 0.8, "recall/Crystals": 0.9}`.
    """
    missed = []
    for name in sorted(thresholds, key=list(metrics).index):
        value, bound = metrics[name], thresholds[name]
        if not value >= bound:
            got = "cannot be computed from these examples" if math.isnan(value) else f"is {_below(value, bound)}"
            missed.append(f"{name} {got}, and at least {bound:g} is wanted")
    return missed


def _below(value: float, bound: float) -> str:
    """To four digits, or to all where four would look like the bound."""
    return f"{value:.4f}" if float(f"{value:.4f}") < bound else repr(value)


def slice_metrics(evaluation_uri: str) -> dict[str, Any]:
    """Returns the content of `metrics.json` in an evaluation artifact; raises `InputError` if it is missing."""
    missing = f"no evaluation at {evaluation_uri}: {METRICS_FILE} is missing; run the Evaluator first"
    return store.read_json(f"{evaluation_uri.rstrip('/')}/{METRICS_FILE}", missing)


def flat_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics for MLflow: `eval/accuracy`, `eval/institution/CSIRO/recall/Crystals`, …; undefined left out.

    MLflow allows no ×: the slices of both columns are `eval/institution x imager/CSIRO x Rigaku Minstrel/…`.
    """
    metrics = {}
    for kind, slices in evaluation["slices"].items():
        for value, numbers in slices.items():
            prefix = "eval" if kind == OVERALL else f"eval/{kind}/{value}".replace("×", "x")
            for name, number in numbers.items():
                if isinstance(number, int | float):
                    metrics[f"{prefix}/{name}"] = float(number)
    return metrics


# The table of predictions, which needs neither TFX nor Beam

PREDICTIONS_FILE = "predictions.parquet"
COLUMNS = ("shard", "index", "image_id", "filename", "label", "institution", "imager", "scores", "plate")


def read_predictions(evaluation_uri: str) -> "pd.DataFrame":
    """Returns the table of predictions of an evaluation artifact; raises `InputError` if it is missing or not one.

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


def write_predictions(frame: "pd.DataFrame", path: str | Path) -> None:
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
