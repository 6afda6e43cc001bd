"""Compares runs slice by slice: accuracy, recall, and the differences to the first run with their intervals."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from components import mlflow_registry, mlflow_runs, prediction_table, significance
from components.evaluations import ALL, METRICS_FILE, OVERALL, SLICES, slice_metrics
from components.gate import aligned
from components.mlflow_runs import EVALUATION, FINGERPRINT
from components.prediction_table import scores_of
from components.settings import CRYSTALS, percent
from marco_model.errors import InputError
from marco_model.store import exists, whole_file

if TYPE_CHECKING:
    import pandas as pd

ACCURACY = "accuracy"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


class Slice(NamedTuple):
    """Which images: `kind` `overall`, `institution` or `imager`, and its value, `all` for the first."""

    kind: str
    value: str


class Share(NamedTuple):
    """A share of correctly labelled images, with its counts; both are None if only the share is known."""

    share: float
    hits: int | None
    images: int | None


@dataclasses.dataclass(frozen=True)
class Judged:
    """An evaluated run. `shares`: by metric (`accuracy`, `recall/CLASS`) and slice. `predictions`: None if missing."""

    label: str
    shares: dict[tuple[str, Slice], Share]
    classes: list[str]
    predictions: pd.DataFrame | None


def find_judged(run: str, tracking: str, name: str) -> Judged:
    """Returns what `run` names: a run's folder, an MLflow run id, or a version or alias of the registered model `name`.

    `tracking`: MLflow's URI or a run's folder, for ids and versions. Raises `InputError` if there is no such run, or
    it was not evaluated.
    """
    if (Path(run) / "summary.json").is_file():
        return _of_folder(run)
    if _RUN_ID.fullmatch(run):
        return _of_mlflow(run[:8], mlflow_registry.tracking_uri(tracking), run)
    if Path(run).is_dir():
        raise InputError(f"{run} holds no summary.json; give the --output of a marco run that has ended")
    store = mlflow_registry.tracking_uri(tracking)
    client = mlflow_runs.connect(store)
    with mlflow_runs.reaching(store):
        version = (
            client.get_model_version(name, run) if run.isdecimal() else client.get_model_version_by_alias(name, run)
        )
    return _of_mlflow(f"version {version.version}", store, version.run_id, version.tags)


def _of_folder(run: str) -> Judged:
    summary = json.loads((Path(run) / "summary.json").read_text())
    model = summary.get("model_fingerprint") or ""
    evaluation = str(Path(run) / summary["evaluation"])
    if _judges(evaluation, model):
        return _of_evaluation(run, evaluation)
    if not summary["tracking_uri"]:
        raise InputError(
            f"{evaluation}, which {run}/summary.json names, is missing or of another model, and no MLflow store is "
            "named beside it; run it again"
        )
    return _of_mlflow(run, summary["tracking_uri"], summary["mlflow_run_id"], {FINGERPRINT: model} if model else {})


def _of_mlflow(label: str, store: str, run_id: str, own: Mapping[str, str] | None = None) -> Judged:
    """`own`: tags of the model in question, since a retrained run has those of its last model."""
    client = mlflow_runs.connect(store)
    with mlflow_runs.reaching(store):
        data = client.get_run(run_id).data
    tags = {**data.tags, **(own or {})}
    evaluation, model = tags.get(EVALUATION, ""), tags.get(FINGERPRINT, "")
    if evaluation and _judges(evaluation, model):
        return _of_evaluation(label, evaluation)
    if data.tags.get(FINGERPRINT, model) != model:
        raise InputError(
            f"the evaluation of {label} is not there, or of another model by now, and run {run_id} in {store} has been "
            "retrained since; compare another run"
        )
    shares = dict(_of_metrics(data.metrics))
    if not shares:
        raise InputError(f"run {run_id} in {store} was not judged; run it to its end")
    return Judged(label, shares, [], None)


def _judges(evaluation: str, model: str) -> bool:
    """Returns whether an evaluation exists and is of the model with this fingerprint: TFX reuses folders.

    An evaluation without a fingerprint is accepted.
    """
    return exists(f"{evaluation}/{METRICS_FILE}") and slice_metrics(evaluation).get("model", "") in ("", model)


def _of_metrics(metrics: dict[str, float]) -> Any:
    """Yields shares from MLflow's metrics, which have counts of images, but not per class."""
    for path, value in metrics.items():
        if not path.startswith("eval/"):
            continue
        parts = path.split("/")
        kind = parts[1] if parts[1] in SLICES else OVERALL
        where = Slice(kind, parts[2]) if kind in SLICES else Slice(OVERALL, ALL)
        metric = "/".join(parts[3:] if kind in SLICES else parts[1:])
        if not (metric == ACCURACY or metric.startswith("recall/")):
            continue
        prefix = path.removesuffix(metric)
        count = metrics.get(f"{prefix}count") if metric == ACCURACY else None
        hits = None if count is None else round(value * count)
        yield (metric, where), Share(value, hits, None if count is None else int(count))


def _of_evaluation(label: str, evaluation: str) -> Judged:
    content = slice_metrics(evaluation)
    shares = {}
    for kind in (OVERALL, *SLICES):
        for value, metrics in content["slices"][kind].items():
            matrix = metrics["confusion_matrix"]
            counts = {ACCURACY: (sum(row[index] for index, row in enumerate(matrix)), metrics["count"])}
            counts |= {
                f"recall/{name}": (matrix[index][index], sum(matrix[index]))
                for index, name in enumerate(content["classes"])
            }
            for metric, (hits, count) in counts.items():
                if count:
                    shares[metric, Slice(kind, value)] = Share(hits / count, hits, count)
    has_predictions = exists(f"{evaluation}/{prediction_table.PREDICTIONS_FILE}")
    predictions = prediction_table.read(evaluation) if has_predictions else None
    return Judged(label, shares, content["classes"], predictions)


PAIRED, UNPAIRED, UNKNOWN = "paired", "unpaired", ""
_RECALL = "recall/"
COLUMNS = ("metric", "slice", "value", "run", "share", "images", "difference", "low", "high", "how", "p")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run in a slice: its share and images, and the `difference` to the first run.

    `how`: `paired`, on the same images, by Agresti and Min's interval, with `p` of McNemar's exact two-sided test;
    `unpaired`, by Newcombe's; empty if the counts for an interval are unknown, and for the first run.
    """

    run: str
    share: float | None = None
    images: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    how: str = UNKNOWN
    p: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A metric of a slice, with one cell per run."""

    metric: str
    slice: str
    value: str
    cells: tuple[Cell, ...]


def compare(runs: Sequence[Judged], recall_class: str | None = None, confidence: float = 0.95) -> list[Row]:
    """Returns the rows of `accuracy` and of the recall of `recall_class`, overall first.

    Without a `recall_class` it is Crystals, or no class where there is no Crystals. Raises `InputError` if a run's
    classes differ from the first run's, or `recall_class` is not among them.
    """
    first = runs[0]
    for run in runs[1:]:
        if first.classes and run.classes and run.classes != first.classes:
            raise InputError(
                f"{run.label} has the classes {', '.join(run.classes)}, and {first.label} {', '.join(first.classes)}; "
                "compare runs of the same classes"
            )
    tables = [_tables(first, run) for run in runs[1:]]
    rows = []
    for metric in (ACCURACY, *_recall(runs, recall_class)):
        for where in sorted({part for run in runs for name, part in run.shares if name == metric}, key=_rank):
            key = (metric, where)
            base = first.shares.get(key)
            cells = [Cell(first.label, base.share, base.images) if base else Cell(first.label)]
            for run, table in zip(runs[1:], tables, strict=True):
                cells.append(_cell(run, run.shares.get(key), base, _pairs(table, key, first.classes), confidence))
            rows.append(Row(metric, where.kind, where.value, tuple(cells)))
    return rows


def _recall(runs: Sequence[Judged], recall_class: str | None) -> list[str]:
    """Returns the metric beside accuracy, if there is one."""
    known = classes_of(runs)
    if recall_class is None:
        return [f"{_RECALL}{CRYSTALS}"] if CRYSTALS in known else []
    if recall_class not in known:
        raise InputError(f"recall class {recall_class!r} is not a class of these runs; choose from {', '.join(known)}")
    return [f"{_RECALL}{recall_class}"]


def classes_of(runs: Sequence[Judged]) -> list[str]:
    """Returns the classes of which the runs know the recall."""
    named = (
        run.classes or [metric.removeprefix(_RECALL) for metric, _ in run.shares if metric != ACCURACY] for run in runs
    )
    return list(dict.fromkeys(itertools.chain.from_iterable(named)))


def _rank(where: Slice) -> tuple[bool, str, str]:
    return (where.kind != OVERALL, where.kind, where.value)


def _tables(first: Judged, run: Judged) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Returns the predictions of both in the same order, or None if they are not of the same images."""
    if first.predictions is None or run.predictions is None:
        return None
    try:
        return aligned(first.predictions, run.predictions)
    except InputError:
        return None


def _pairs(
    tables: tuple[pd.DataFrame, pd.DataFrame] | None, key: tuple[str, Slice], classes: Sequence[str]
) -> significance.Pairs | None:
    if tables is None:
        return None
    base, other = tables
    metric, where = key
    labels = base["label"].to_numpy()
    chosen = np.ones(len(labels), bool) if where.kind == OVERALL else base[where.kind].to_numpy() == where.value
    if metric != ACCURACY:
        chosen &= labels == list(classes).index(metric.partition("/")[2])
    right = [scores_of(table).argmax(axis=1)[chosen] == labels[chosen] for table in (other, base)]
    return significance.pairs(*right)


def _cell(
    run: Judged, share: Share | None, base: Share | None, pairs: significance.Pairs | None, confidence: float
) -> Cell:
    if share is None:
        return Cell(run.label)
    cell = Cell(run.label, share.share, share.images)
    if base is None:
        return cell
    cell = dataclasses.replace(cell, difference=share.share - base.share)
    if pairs is not None:
        low, high, _ = significance.paired_interval(pairs, confidence)
        return dataclasses.replace(cell, low=low, high=high, how=PAIRED, p=significance.p_different(pairs))
    if share.hits is None or share.images is None or base.hits is None or base.images is None:
        return cell
    low, high = significance.unpaired_interval(share.hits, share.images, base.hits, base.images, confidence)
    return dataclasses.replace(cell, low=low, high=high, how=UNPAIRED)


def table(rows: Sequence[Row], metric: str) -> Any:
    """Returns a rich table of one metric, rows by slice, columns by run; `=` marks paired, `~` unpaired differences."""
    from rich.table import Table
    from rich.text import Text  # Users' names may look like markup or emoji codes.

    table = Table(title=Text(metric, style="table.title"), title_justify="left")
    chosen = [row for row in rows if row.metric == metric]
    for column in ("slice", ""):
        table.add_column(column)
    for cell in chosen[0].cells if chosen else ():
        table.add_column(Text(cell.run), justify="right")
    for row in chosen:
        value = "" if row.slice == OVERALL else row.value
        table.add_row(row.slice, Text(value), *(_cell_text(cell) for cell in row.cells))
    return table


def _cell_text(cell: Cell) -> str:
    if cell.share is None:
        return "–"
    text = f"{cell.share:.1%}" + (f" of {cell.images:,}" if cell.images is not None else "")
    if cell.difference is None:
        return text
    difference = f"{100 * cell.difference:+.1f}"
    if cell.low is None or cell.high is None:
        return f"{text}\n{difference}"
    mark = "=" if cell.how == PAIRED else "~"
    return f"{text}\n{difference} ({100 * cell.low:+.1f} to {100 * cell.high:+.1f}) {mark}"


def describe(runs: Sequence[Judged], rows: Sequence[Row], confidence: float) -> list[str]:
    """Returns how each run was compared with the first, in words."""
    lines = [f"differences to {runs[0].label} in percentage points, with {percent(confidence)} intervals:"]
    for index, run in enumerate(runs[1:], 1):
        how = {row.cells[index].how for row in rows if row.cells[index].difference is not None}
        words = {
            PAIRED: "= paired: both judged the same images (McNemar, Agresti–Min)",
            UNPAIRED: "~ unpaired: other images, or no predictions (Newcombe)",
            UNKNOWN: "no interval where the count of images is not known",
        }
        lines += [f"  {run.label}: {words[kind]}" for kind in (PAIRED, UNPAIRED, UNKNOWN) if kind in how]
    if all(row.metric == ACCURACY for row in rows):
        known = ", ".join(classes_of(runs)) or "no known class"
        lines.append(f"accuracy alone: no class is called {CRYSTALS}; --recall-class takes one of {known}")
    return lines


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes one line for each metric, slice and run, in shares, not percentages; unknown values are empty."""
    with whole_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            for cell in row.cells:
                place = {"metric": row.metric, "slice": row.slice, "value": row.value}
                writer.writerow({**place, **dataclasses.asdict(cell)})


def write_json(rows: Sequence[Row], confidence: float, path: Path) -> None:
    """Writes `confidence` and `rows`, as `Row` and `Cell` have them; null where unknown."""
    content = {"confidence": confidence, "rows": [dataclasses.asdict(row) for row in rows]}
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=1) + "\n")
