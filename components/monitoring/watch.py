"""The two commands: make a reference, and check images against one; the report of a check and its MLflow run."""

import base64
import collections
import dataclasses
import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components import mlflow_runs, mlflow_store
from components.monitoring import drift, measure, statistics, two_sample
from marco_data import pages
from marco_model import model_directory, store

_BINS = 32


def histogram(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Returns two distributions, float [n] and [m], over one axis from `low` to `high`; 1 % at either end is cut off.

    `before`, `after`: the heights of their bins, of which the highest is 1.
    """
    both = np.concatenate([before, after])
    low, high = np.quantile(both, [0.01, 0.99])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(np.clip(values, low, high), edges)[0] / len(values) for values in (before, after)]
    top = max(count.max() for count in counts)
    return {"low": low, "high": high, "before": (counts[0] / top).tolist(), "after": (counts[1] / top).tolist()}


_UNITS = {"height": " pixels", "width": " pixels"}
_DIGITS = {"height": 0, "width": 0, "brightness": 0, "noise": 4}
TITLES = {
    two_sample.EMBEDDING: "what the network sees",
    two_sample.CLASSES: "predicted classes",
    two_sample.CONFIDENCE: "highest score",
    two_sample.STRANGERS: "images like none of the reference",
}


def title(test: two_sample.Test) -> str:
    """Returns what was compared, such as `brightness`."""
    return TITLES.get(test.kind, test.name)


def change(test: two_sample.Test, classes: Sequence[str]) -> str:
    """Returns the change in figures: `median 142 → 171`, `Crystals 25 % → 48 %`."""
    if isinstance(test.before, list) and isinstance(test.after, list):
        name, old, new = max(zip(classes, test.before, test.after, strict=True), key=lambda row: abs(row[2] - row[1]))
        return f"{name} {old:.0%} → {new:.0%}"
    before, after = float(test.before), float(test.after)  # type: ignore[arg-type]
    if test.kind == two_sample.STRANGERS:
        return f"{before:.0%} → {after:.0%}"
    if test.kind == two_sample.EMBEDDING:
        return f"{test.effect:.1%} of the distance"
    digits = _DIGITS.get(test.name, 3)
    return f"median {before:,.{digits}f} → {after:,.{digits}f}{_UNITS.get(test.name, '')}"


def headline(verdict: drift.Verdict, classes: Sequence[str]) -> str:
    """Returns the finding for an imager in one line."""
    count = f"{verdict.images:,} images"
    alarms = [test for test in verdict.tests if test.alarm]
    if verdict.status == drift.UNREADABLE:
        return f"unreadable: {verdict.failed:,} of {verdict.failed + verdict.images:,} images{_also(alarms)}"
    if verdict.status == drift.NEW:
        name, share = verdict.resembles or ("", 0.0)
        like = f"; of the known ones {name} is nearest ({share:.0%} of the images)" if name else ""
        if not verdict.compared_with:
            return f"new imager, not in the reference: {count}{like}"
        return f"not the images of this imager: {title(alarms[0])}, {change(alarms[0], classes)} ({count}){like}"
    if verdict.status == drift.ALARM:
        return f"{title(alarms[0])}: {change(alarms[0], classes)} ({count}){_also(alarms[1:])}"
    if verdict.status == drift.CLEAN:
        return f"no change ({count})"
    if verdict.status == drift.FEW_BEFORE:
        whose = "of this imager" if verdict.compared_with else "in all"
        return (
            f"cannot be decided: the reference has {verdict.before:,} images {whose}, too few to compare {count} with; "
            "make it again with more (marco monitor reference)"
        )
    return f"too few to tell: {count}{f', and {verdict.failed:,} unreadable' if verdict.failed else ''}"


def _also(tests: Sequence[two_sample.Test]) -> str:
    return f"; also {', '.join(title(test) for test in tests)}" if tests else ""


JSON, HTML = "drift.json", "drift.html"
_THUMBNAILS = 6


def as_json(
    verdicts: Sequence[drift.Verdict], measured: measure.Measured, reference: drift.Reference, limits: two_sample.Limits
) -> dict[str, Any]:
    """Returns the outcome: `alarm`, `imagers` with every test, `unreadable`, and what it was judged by."""
    return {
        "alarm": any(verdict.alarming for verdict in verdicts),
        "checked": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": reference.facts["model"],
        "images": len(measured.table),
        "seen": sum(measured.seen.values()),
        "imagers": [_imager(verdict, reference.classes) for verdict in verdicts],
        "unreadable": [{"imager": imager, "name": name, "reason": reason} for imager, name, reason in measured.failed],
        "limits": limits.model_dump(),
        "reference": {"measured": reference.facts["measured"], "seen": reference.facts["seen"]},
    }


def _imager(verdict: drift.Verdict, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "imager": verdict.imager,
        "status": verdict.status,
        "first": verdict.first,
        "headline": headline(verdict, classes),
        "images": verdict.images,
        "failed": verdict.failed,
        "seen": verdict.seen,
        "compared_with": verdict.compared_with,
        "resembles": list(verdict.resembles) if verdict.resembles else None,
        "tests": [dataclasses.asdict(test) for test in verdict.tests],
    }


def write(
    directory: Path,
    report: dict[str, Any],
    verdicts: Sequence[drift.Verdict],
    table: statistics.Table,
    reference: drift.Reference,
) -> None:
    """Writes both files into `directory`, made if missing; those of an earlier check are replaced."""
    page = as_html(report, verdicts, table, reference)
    with store.sole_writer(directory, seconds=60):  # Both are of one check.
        with store.whole_file(directory / HTML) as file:
            file.write(page)
        with store.whole_file(directory / JSON) as file:
            file.write(json.dumps(report, indent=2) + "\n")


def summary(report: dict[str, Any]) -> str:
    """Returns the outcome in one line."""
    alarming = [imager for imager in report["imagers"] if imager["status"] in drift.ALARMING]
    if alarming:
        more = f" and {len(alarming) - 1} more" if len(alarming) > 1 else ""
        return f"{alarming[0]['imager']}: {alarming[0]['first']}{more}"
    judged = [imager for imager in report["imagers"] if imager["status"] not in drift.UNDECIDED]
    return f"No change at {len(judged)} imagers" if judged else "Too few images to tell"


def as_html(
    report: dict[str, Any], verdicts: Sequence[drift.Verdict], table: statistics.Table, reference: drift.Reference
) -> str:
    """Returns the page; `table`'s embeddings are ignored."""
    cards = [_card(verdict, table.of_imager(verdict.imager), reference) for verdict in verdicts]
    template = pages.environment(Path(__file__).parent).get_template("drift.html.j2")
    return template.render(report=report, cards=cards, summary=summary(report))


def _card(verdict: drift.Verdict, new: statistics.Table, reference: drift.Reference) -> dict[str, Any]:
    known = verdict.compared_with
    old = reference.table.of_imager(known) if known else reference.table
    against = f"{len(old):,} images of {'the same imager' if known else 'all imagers'}"
    shown = [test for test in verdict.tests if test.alarm] or list(verdict.tests[:2])
    return {
        "imager": verdict.imager,
        "style": "alarm" if verdict.alarming else "few" if verdict.status in drift.UNDECIDED else "clean",
        "headline": headline(verdict, reference.classes),
        "note": f"{verdict.images:,} measured of {verdict.seen:,}; reference: {against}",
        "figures": [figure for test in shown if (figure := _figure(test, new, old, reference.classes))],
        "thumbnails": _thumbnails(old, new) if verdict.alarming else [],
        "tests": [
            {**dataclasses.asdict(test), "title": title(test), "change": change(test, reference.classes)}
            for test in verdict.tests
        ],
    }


def _figure(
    test: two_sample.Test, new: statistics.Table, old: statistics.Table, classes: Sequence[str]
) -> dict[str, Any] | None:
    """Returns what the page draws of a test: the `shares` of the classes, or a `histogram`; None for other tests."""
    figure = {"title": title(test), "text": change(test, classes)}
    if test.kind == two_sample.CLASSES:
        return {**figure, "shares": list(zip(classes, test.before, test.after, strict=True))}  # type: ignore[arg-type]
    if test.kind == two_sample.STATISTIC:
        column = statistics.NAMES.index(test.name)
        return {**figure, "histogram": histogram(old.statistics[:, column], new.statistics[:, column])}
    if test.kind == two_sample.CONFIDENCE:
        return {**figure, "histogram": histogram(old.scores.max(axis=1), new.scores.max(axis=1))}
    return None


def _thumbnails(old: statistics.Table, new: statistics.Table) -> list[dict[str, Any]]:
    rows = []
    for name, table in (("Reference", old), ("Now", new)):
        some = table.take(np.flatnonzero([bool(data) for data in table.thumbnail])[:_THUMBNAILS])
        images = [
            {"name": name, "data": base64.b64encode(data).decode()}
            for name, data in zip(some.name, some.thumbnail, strict=True)
        ]
        if images:
            rows.append({"title": name, "images": images})
    return rows


def check_images(
    paths: Sequence[str],
    output: Path,
    reference: drift.Reference,
    setup: measure.Setup,
    limits: two_sample.Limits,
    days: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Checks images against `reference`; writes `drift.json` and `drift.html` into `output`, returns the former.

    `days`: only images of files that changed so many days ago at most; that there are none is no error.
    """
    measured = measure.measure_images(paths, setup, limits.most, seed, days)
    table = reference.project(measured.table)
    failed = collections.Counter(imager for imager, _, _ in measured.failed)
    verdicts = drift.check(reference, table, measured.seen, limits, seed, failed)
    outcome = as_json(verdicts, measured, reference, limits)
    write(output, outcome, verdicts, table, reference)
    return outcome


def model_facts(directory: Path) -> dict[str, Any]:
    """Returns `name`, `fingerprint` and `classes` of the classifier in `directory`; raises InputError without one."""
    metadata = model_directory.read_metadata(directory)
    return {
        "name": metadata.get("name", directory.name) if metadata else model_directory.PUBLISHED_NAME,
        "fingerprint": model_directory.model_fingerprint(directory),
        "classes": model_directory.class_names(directory),
    }


EXPERIMENT = "marco-monitoring"


def store_of_checks(tracking: str) -> str:
    """Returns the tracking URI for a check: `tracking`, a URI or a run's folder, else the default store.

    Empty if the default store is a SQLite file that does not exist: a check alone makes none.
    """
    if tracking:
        return mlflow_store.default_store(tracking) if store.is_remote(tracking) else mlflow_store.find_store(tracking)
    uri = mlflow_store.default_store()
    file = mlflow_store.sqlite_file(uri)
    return uri if file is None or file.is_file() else ""


def log_to_mlflow(tracking_uri: str, outcome: dict[str, Any], files: list[Path]) -> str:
    """Logs a check as one run of the experiment `marco-monitoring`; returns the run's id.

    Metrics: `alarms`, and for each imager `IMAGER/images` and `IMAGER/TEST`, the effects. Raises InputError where
    MLflow does not answer.
    """
    with mlflow_store.session(tracking_uri) as client:
        experiment = mlflow_store.find_experiment(client, tracking_uri, EXPERIMENT)
        created = client.create_run(experiment, run_name=f"drift {outcome['checked']}")
        run = mlflow_runs.Run(tracking_uri, created.info.run_id)
        run.log_curves(0, metrics(outcome))
        run.set_tags({"marco.alarm": str(outcome["alarm"]).lower(), "marco.model": outcome["model"]["name"]})
        for file in files:
            client.log_artifact(run.run_id, str(file))
        run.close()
    return run.run_id


def metrics(outcome: dict[str, Any]) -> dict[str, float]:
    """Returns the figures of a check by names that MLflow allows."""
    figures: dict[str, float] = {
        "alarms": sum(entry["status"] in drift.ALARMING for entry in outcome["imagers"]),
        "images": outcome["images"],
        "unreadable": len(outcome["unreadable"]),
    }
    for entry in outcome["imagers"]:
        imager = re.sub(r"[^\w\-. ]+", "-", entry["imager"])
        figures[f"{imager}/images"] = entry["images"]
        figures.update({f"{imager}/{test['name']}": test["effect"] for test in entry["tests"]})
    return figures
