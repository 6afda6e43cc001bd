"""The outcome of a check as `drift.json`, and as `drift.html` for people: one file, no server, readable on a phone."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from components.monitoring import comparison, figures, wording
from components.monitoring.drift import ALARMING, UNDECIDED, Finding, Verdict
from components.monitoring.limits import Limits
from components.monitoring.measure import Measured
from components.monitoring.reference import Reference
from components.monitoring.statistics import NAMES
from components.monitoring.table import Table

JSON, HTML = "drift.json", "drift.html"
_THUMBNAILS = 6


def as_json(verdicts: Sequence[Verdict], measured: Measured, reference: Reference, limits: Limits) -> dict[str, Any]:
    """Returns the outcome: `alarm`, `imagers` with every test, `unreadable`, and what it was judged by."""
    return {
        "alarm": any(verdict.alarming for verdict in verdicts),
        "checked": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": reference.facts["model"],
        "images": len(measured.table),
        "seen": sum(measured.seen.values()),
        "imagers": [_imager(verdict, reference.classes) for verdict in verdicts],
        "unreadable": [{"imager": imager, "name": name, "reason": reason} for imager, name, reason in measured.failed],
        "limits": dataclasses.asdict(limits),
        "reference": {"measured": reference.facts["measured"], "seen": reference.facts["seen"]},
    }


def _imager(verdict: Verdict, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "imager": verdict.imager,
        "status": verdict.status,
        "first": verdict.first,
        "headline": wording.headline(verdict, classes),
        "images": verdict.images,
        "failed": verdict.failed,
        "seen": verdict.seen,
        "compared_with": verdict.compared_with,
        "resembles": list(verdict.resembles) if verdict.resembles else None,
        "tests": [
            {**dataclasses.asdict(finding.test), "adjusted": finding.adjusted, "alarm": finding.alarm}
            for finding in verdict.findings
        ],
    }


def write(
    directory: Path, report: dict[str, Any], verdicts: Sequence[Verdict], table: Table, reference: Reference
) -> None:
    """Writes both files into `directory`, made if missing; those of an earlier check are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / HTML, as_html(report, verdicts, table, reference))
    _write(directory / JSON, json.dumps(report, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


def summary(report: dict[str, Any]) -> str:
    """Returns the outcome in one line."""
    alarming = [one for one in report["imagers"] if one["status"] in ALARMING]
    if alarming:
        more = f" and {len(alarming) - 1} more" if len(alarming) > 1 else ""
        return f"{alarming[0]['imager']}: {alarming[0]['first']}{more}"
    judged = [one for one in report["imagers"] if one["status"] not in UNDECIDED]
    return f"No change at {len(judged)} imagers" if judged else "Too few images to tell"


def as_html(report: dict[str, Any], verdicts: Sequence[Verdict], table: Table, reference: Reference) -> str:
    """Returns the page; `table`'s embeddings are not looked at."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    cards = [_card(verdict, table.of(verdict.imager), reference) for verdict in verdicts]
    return environment.get_template("drift.html.j2").render(report=report, cards=cards, summary=summary(report))


def _card(verdict: Verdict, new: Table, reference: Reference) -> dict[str, Any]:
    known = verdict.compared_with
    old = reference.table.of(known) if known else reference.table
    against = f"{len(old):,} images of {'the same imager' if known else 'all imagers'}"
    shown = [finding for finding in verdict.findings if finding.alarm] or list(verdict.findings[:2])
    return {
        "imager": verdict.imager,
        "style": "alarm" if verdict.alarming else "few" if verdict.status in UNDECIDED else "clean",
        "headline": wording.headline(verdict, reference.classes),
        "note": f"{verdict.images:,} measured of {verdict.seen:,}; reference: {against}",
        "figures": [figure for one in shown if (figure := _figure(one, new, old, reference.classes))],
        "thumbnails": _thumbnails(old, new) if verdict.alarming else [],
        "tests": [
            {
                **dataclasses.asdict(finding.test),
                "title": wording.title(finding.test),
                "change": wording.change(finding.test, reference.classes),
                "adjusted": finding.adjusted,
                "alarm": finding.alarm,
            }
            for finding in verdict.findings
        ],
    }


def _figure(finding: Finding, new: Table, old: Table, classes: Sequence[str]) -> dict[str, Any] | None:
    test = finding.test
    if test.kind == comparison.CLASSES:
        svg = figures.shares(classes, test.before, test.after)  # type: ignore[arg-type]
    elif test.kind == comparison.STATISTIC:
        column = NAMES.index(test.name)
        svg = figures.histogram(old.statistics[:, column], new.statistics[:, column])
    elif test.kind == comparison.CONFIDENCE:
        svg = figures.histogram(old.scores.max(axis=1), new.scores.max(axis=1))
    else:
        return None
    return {"svg": Markup(svg), "title": wording.title(test), "text": wording.change(test, classes)}


def _thumbnails(old: Table, new: Table) -> list[dict[str, Any]]:
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
