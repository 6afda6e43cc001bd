"""The whole check: which imagers' images are no longer those of the reference, and what of them changed first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.monitoring import comparison
from components.monitoring.comparison import Test, compare
from components.monitoring.limits import Limits
from components.monitoring.reference import Reference
from components.monitoring.table import Table
from components.monitoring.two_sample import holm
from marco_data.institutions import UNKNOWN

CLEAN, ALARM, NEW, TOO_FEW = "clean", "alarm", "new imager", "too few"

# A change of the images changes what the network sees of them, and that what it says: the cause is named first.
_CAUSES = (comparison.STATISTIC, comparison.STRANGERS, comparison.EMBEDDING, comparison.CLASSES, comparison.CONFIDENCE)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A test with its place in the whole check: its p-value adjusted for all others, and whether it is an alarm."""

    test: Test
    adjusted: float
    alarm: bool


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One imager.

    Attributes:
        imager: its name.
        status: `clean`, `alarm`, `new imager` (an alarm too) or `too few`. An imager is new by its name, or because its
            images are not those of the imager that they are said to be of: a camera's images have one size.
        images, seen: how many were measured, and how many there were.
        compared_with: the imager of the reference, or nothing where it was all of it together.
        resembles: the imager whose images of the reference are nearest to most of these, and to which share of them;
            only of a new imager.
        findings: alarms first, in the order cause to consequence, then by size.
    """

    imager: str
    status: str
    images: int
    seen: int
    compared_with: str
    resembles: tuple[str, float] | None
    findings: tuple[Finding, ...]

    @property
    def alarming(self) -> bool:
        """Whether somebody should look."""
        return self.status in (ALARM, NEW)

    @property
    def first(self) -> str:
        """The name of what changed first: `new imager`, a statistic, or a kind of test; empty if nothing did."""
        if self.status == NEW:
            return NEW
        return next((finding.test.name for finding in self.findings if finding.alarm), "")


def check(
    reference: Reference, table: Table, seen: Mapping[str, int], limits: Limits | None = None, seed: int = 0
) -> list[Verdict]:
    """Compares the images of each imager with its reference; alarms come first.

    `table`: measured with the reference's model, embeddings projected. `seen`: how many images there were. An imager
    that the reference doesn't have is compared with all of it together, and so are images of which nobody said by which
    imager they were taken; only the former is new.
    """
    limits = limits or Limits()
    compared = {imager: _compared(reference, table.of(imager), imager, limits, seed) for imager in table.imagers()}
    tests = comparison.TESTS * sum(old is not None for _, old, _ in compared.values())
    found: dict[str, list[Test]] = {}
    for number, (imager, (new, old, _)) in enumerate(compared.items()):
        if old is not None:
            found[imager] = compare(new, old, limits, tests, np.random.default_rng([seed, number]))
    adjusted = iter(holm([test.p_value for tests in found.values() for test in tests]))
    verdicts = []
    for imager in sorted({*seen, *compared}):
        new, _, name = compared.get(imager, (table.take(np.zeros(0, int)), None, ""))
        findings = _findings(found.get(imager, []), adjusted, limits)
        unnamed = name == "" and imager != UNKNOWN
        status = NEW if len(new) and (unnamed or _another_camera(findings)) else _status(findings)
        resembles = _resembles(reference.table, new) if status == NEW else None
        count = seen.get(imager, len(new))
        verdicts.append(Verdict(imager, status, len(new), count, name, resembles, findings))
    return sorted(verdicts, key=lambda one: (not one.alarming, one.status == TOO_FEW, one.imager))


def _compared(
    reference: Reference, new: Table, imager: str, limits: Limits, seed: int
) -> tuple[Table, Table | None, str]:
    """Returns the images to compare, those to compare with, or None if either are too few, and their imager's name."""
    known = imager in reference.table.imager
    old = reference.table.of(imager) if known else reference.table
    new, old = (_at_most(limits.most, one, seed) for one in (new, old))
    return new, old if min(len(new), len(old)) >= limits.least else None, imager if known else ""


def _at_most(count: int, table: Table, seed: int) -> Table:
    if len(table) <= count:
        return table
    return table.take(np.sort(np.random.default_rng(seed).choice(len(table), count, replace=False)))


def _findings(tests: Sequence[Test], adjusted: Any, limits: Limits) -> tuple[Finding, ...]:
    findings = []
    for test in tests:
        p_value = next(adjusted)
        findings.append(Finding(test, p_value, p_value <= limits.alpha and test.effect >= test.limit))
    return tuple(sorted(findings, key=_order))


def _order(finding: Finding) -> tuple[float, ...]:
    test = finding.test
    cause = float(_CAUSES.index(test.kind))
    if test.name == "noise" and float(test.after) < float(test.before):  # type: ignore[arg-type]
        cause += 0.5  # What blurs an image smooths its noise.
    return not finding.alarm, cause if finding.alarm else 0, -test.effect / test.limit


def _another_camera(findings: Sequence[Finding]) -> bool:
    """Tells whether the images have another size, or look like none of the reference and no statistic says why."""
    alarms = [finding.test for finding in findings if finding.alarm]
    if any(test.name in ("height", "width") for test in alarms):
        return True
    kinds = {test.kind for test in alarms}
    return comparison.STRANGERS in kinds and comparison.STATISTIC not in kinds


def _status(findings: Sequence[Finding]) -> str:
    if not findings:
        return TOO_FEW
    return ALARM if any(finding.alarm for finding in findings) else CLEAN


def _resembles(old: Table, new: Table) -> tuple[str, float]:
    """Returns whose images the nearest neighbours are most often, and how often."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=1).fit(old.embedding).kneighbors(new.embedding, return_distance=False)[:, 0]
    names, counts = np.unique(old.imager[nearest].astype(str), return_counts=True)
    return str(names[counts.argmax()]), float(counts.max() / counts.sum())
