"""Compares runs slice by slice: accuracy, recall, and the differences to the first run with their intervals."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich import table as tables, text as texts

from components import evaluations, gate, mlflow_registry, mlflow_runs, mlflow_store, settings, significance
from marco_data import name_tables
from marco_model import InputError, store

ACCURACY = "accuracy"
PAIRED, UNPAIRED, UNKNOWN = "paired", "unpaired", ""
COLUMNS = ("metric", "slice", "value", "run", "share", "images", "difference", "low", "high", "how", "p")
_RECALL = "recall/"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of correctly labelled images, with its counts; both are None if only the share is known."""

    share: float
    hits: int | None
    images: int | None


@dataclasses.dataclass(frozen=True)
class Judged:
    """An evaluated run. `shares`: by metric (`accuracy`, `recall/CLASS`) and slice. `predictions`: None if missing."""

    label: str
    shares: dict[tuple[str, evaluations.SliceKey], Share]
    classes: list[str]
    predictions: pd.DataFrame | None


def find_judged(run: str, tracking: str, name: str | None) -> Judged:
    """Returns what `run` names: a run's folder, an MLflow run id, or a version or alias of a registered model.

    `tracking` and `name`, for ids and versions: as `mlflow_store.find_store` and `mlflow_registry.choose_model` take
    them. Raises `InputError` if there is no such run, or it was not evaluated.
    """
    if (Path(run) / "summary.json").is_file():
        return _of_folder(run)
    if _RUN_ID.fullmatch(run):
        return _of_mlflow(run[:8], mlflow_store.find_store(tracking), run)
    if Path(run).is_dir():
        raise InputError(f"{run} holds no summary.json; give the --output of a marco run that has ended")
    uri = mlflow_store.find_store(tracking)
    name = mlflow_registry.choose_model(uri, name)
    with mlflow_store.session(uri) as client:
        find = client.get_model_version if run.isdecimal() else client.get_model_version_by_alias
        version = find(name, run)
    return _of_mlflow(f"version {version.version}", uri, version.run_id, version.tags)


def _of_folder(run: str) -> Judged:
    summary = store.read_json(f"{run}/summary.json")
    model, evaluation = summary.get("model_fingerprint", ""), str(Path(run) / summary["evaluation"])
    if _judges(evaluation, model):
        return _of_evaluation(run, evaluation)
    if not summary["tracking_uri"]:
        raise InputError(
            f"{evaluation}, which {run}/summary.json names, is missing or of another model, and no MLflow store is "
            "named beside it; run it again"
        )
    uri = mlflow_store.trust(summary["tracking_uri"], f"{run}/summary.json")
    return _of_mlflow(run, uri, summary["mlflow_run_id"], {mlflow_runs.FINGERPRINT: model})


def _of_mlflow(label: str, uri: str, run_id: str, own: Mapping[str, str] | None = None) -> Judged:
    """`own`: tags of the model in question, since a retrained run has those of its last model."""
    with mlflow_store.session(uri) as client:
        data = client.get_run(run_id).data
    tags = {**data.tags, **(own or {})}
    evaluation, model = tags.get(mlflow_runs.EVALUATION, ""), tags.get(mlflow_runs.FINGERPRINT, "")
    if evaluation and _judges(evaluation, model):
        return _of_evaluation(label, evaluation)
    if data.tags.get(mlflow_runs.FINGERPRINT, model) != model:
        raise InputError(
            f"the evaluation of {label} is not there, or of another model by now, and run {run_id} in {uri} has been "
            "retrained since; compare another run"
        )
    shares = dict(_of_metrics(data.metrics))
    if not shares:
        raise InputError(f"run {run_id} in {uri} was not judged; run it to its end")
    return Judged(label, shares, [], None)


def _judges(evaluation: str, model: str) -> bool:
    """Returns whether an evaluation exists and is of the model with this fingerprint: TFX reuses folders."""
    exists = store.exists(f"{evaluation}/{evaluations.METRICS_FILE}")
    return exists and evaluations.slice_metrics(evaluation).get("model") == model


def _of_metrics(metrics: Mapping[str, float]) -> Iterator[tuple[tuple[str, evaluations.SliceKey], Share]]:
    """Yields shares from MLflow's metrics, which have counts of images, but not per class."""
    kinds = "|".join(evaluations.SLICES)
    for path, value in metrics.items():
        match = re.fullmatch(rf"(eval/(?:({kinds})/([^/]*)/)?)({ACCURACY}|{_RECALL}.*)", path)
        if not match:
            continue
        prefix, kind, name, metric = match.groups()
        where = evaluations.SliceKey(kind, name) if kind else evaluations.SliceKey(evaluations.OVERALL, evaluations.ALL)
        count = metrics.get(f"{prefix}count") if metric == ACCURACY else None
        share = Share(value, None, None) if count is None else Share(value, round(value * count), int(count))
        yield (metric, where), share


def _of_evaluation(label: str, evaluation: str) -> Judged:
    content = evaluations.slice_metrics(evaluation)
    shares = {}
    for kind in (evaluations.OVERALL, *evaluations.SLICES):
        for value, metrics in content["slices"][kind].items():
            matrix = metrics["confusion_matrix"]
            right = [row[index] for index, row in enumerate(matrix)]
            counts = {ACCURACY: (sum(right), metrics["count"])}
            for name, hits, row in zip(content["classes"], right, matrix, strict=True):
                counts[f"{_RECALL}{name}"] = (hits, sum(row))
            for metric, (hits, count) in counts.items():
                if count:
                    shares[metric, evaluations.SliceKey(kind, value)] = Share(hits / count, hits, count)
    has_predictions = store.exists(f"{evaluation}/{evaluations.PREDICTIONS_FILE}")
    predictions = evaluations.read_predictions(evaluation) if has_predictions else None
    return Judged(label, shares, content["classes"], predictions)


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
    first, *others = runs
    for run in others:
        if first.classes and run.classes and run.classes != first.classes:
            raise InputError(
                f"{run.label} has the classes {', '.join(run.classes)}, and {first.label} {', '.join(first.classes)}; "
                "compare runs of the same classes"
            )
    judgements = [_judgements(first, run) for run in others]
    rows = []
    for metric in (ACCURACY, *_recall(runs, recall_class)):
        keys = {key for run in runs for name, key in run.shares if name == metric}
        for key in sorted(keys, key=lambda key: (key.kind != evaluations.OVERALL, key)):
            base = first.shares.get((metric, key))
            cells = [Cell(first.label, base.share, base.images) if base else Cell(first.label)]
            for run, images in zip(others, judgements, strict=True):
                pairs = None if images is None else _pairs(images, metric, key)
                cells.append(_cell(run.label, run.shares.get((metric, key)), base, pairs, confidence))
            rows.append(Row(metric, key.kind, key.value, tuple(cells)))
    return rows


def _recall(runs: Sequence[Judged], recall_class: str | None) -> list[str]:
    """Returns the metric beside accuracy, if there is one."""
    known = classes_of(runs)
    if recall_class is None:
        return [f"{_RECALL}{settings.CRYSTALS}"] if settings.CRYSTALS in known else []
    if recall_class not in known:
        raise InputError(f"recall class {recall_class!r} is not a class of these runs; choose from {', '.join(known)}")
    return [f"{_RECALL}{recall_class}"]


def classes_of(runs: Sequence[Judged]) -> list[str]:
    """Returns the classes of which the runs know the recall."""
    named = (
        run.classes or [metric.removeprefix(_RECALL) for metric, _ in run.shares if metric != ACCURACY] for run in runs
    )
    return list(dict.fromkeys(name for names in named for name in names))


def _judgements(first: Judged, run: Judged) -> pd.DataFrame | None:
    """Returns the images that both judged: recall metric of the class, slices, and whether each run is right.

    Returns None if predictions are missing or not of the same images.
    """
    if first.predictions is None or run.predictions is None:
        return None
    try:
        aligned = gate.aligned(first.predictions, run.predictions)
    except InputError:
        return None
    labels = aligned[0]["label"].to_numpy()
    first_right, run_right = (evaluations.scores_of(table).argmax(axis=1) == labels for table in aligned)
    recall = [f"{_RECALL}{first.classes[label]}" for label in labels]
    return aligned[0][[*evaluations.SLICES]].assign(
        recall=recall, first_right=first_right, run_right=run_right, plate=evaluations.plates(aligned[0])
    )


def _pairs(images: pd.DataFrame, metric: str, key: evaluations.SliceKey) -> significance.Pairs:
    if key.kind != evaluations.OVERALL:
        images = images[images[key.kind] == key.value]
    if metric != ACCURACY:
        images = images[images["recall"] == metric]
    return significance.pairs(*(images[name].to_numpy() for name in ("run_right", "first_right", "plate")))


def _cell(
    label: str, share: Share | None, base: Share | None, pairs: significance.Pairs | None, confidence: float
) -> Cell:
    if share is None:
        return Cell(label)
    if base is None:
        return Cell(label, share.share, share.images)
    cell = Cell(label, share.share, share.images, share.share - base.share)
    if pairs is not None:
        low, high, _ = significance.paired_interval(pairs, confidence)
        return dataclasses.replace(cell, low=low, high=high, how=PAIRED, p=significance.p_different(pairs))
    if share.hits is None or share.images is None or base.hits is None or base.images is None:
        return cell
    low, high = significance.unpaired_interval(share.hits, share.images, base.hits, base.images, confidence)
    return dataclasses.replace(cell, low=low, high=high, how=UNPAIRED)


def table(rows: Sequence[Row], metric: str) -> tables.Table:
    """Returns a rich table of one metric, rows by slice, columns by run; `=` marks paired, `~` unpaired differences."""
    # Users' names may look like markup or emoji codes, which `Text` shows as they are.
    title = texts.Text(metric, style="table.title")
    shown = tables.Table("slice", "", title=title, title_justify="left")
    chosen = [row for row in rows if row.metric == metric]
    for cell in chosen[0].cells if chosen else ():
        shown.add_column(texts.Text(cell.run), justify="right")
    for row in chosen:
        value = "" if row.slice == evaluations.OVERALL else row.value
        shown.add_row(row.slice, texts.Text(value), *map(_cell_text, row.cells))
    return shown


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
    lines = [f"differences to {runs[0].label} in percentage points, with {settings.percent(confidence)} intervals:"]
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
        lines.append(f"accuracy alone: no class is called {settings.CRYSTALS}; --recall-class takes one of {known}")
    return lines


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes one line for each metric, slice and run, in shares, not percentages; unknown values are empty."""
    lines = [{**vars(row), **vars(cell)} for row in rows for cell in row.cells]
    with store.whole_file(path) as file:
        name_tables.write_rows(file, [COLUMNS, *([line[name] for name in COLUMNS] for line in lines)], end="\r\n")


def write_json(rows: Sequence[Row], confidence: float, path: Path) -> None:
    """Writes `confidence` and `rows`, as `Row` and `Cell` have them; null where unknown."""
    content = {"confidence": confidence, "rows": [dataclasses.asdict(row) for row in rows]}
    with store.whole_file(path) as file:
        file.write(json.dumps(content, indent=1) + "\n")
