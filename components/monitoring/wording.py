"""What a test says, in words."""

from __future__ import annotations

from collections.abc import Sequence

from components.monitoring import comparison
from components.monitoring.comparison import Test
from components.monitoring.drift import ALARM, CLEAN, FEW_BEFORE, NEW, UNREADABLE, Verdict

_UNITS = {"height": " pixels", "width": " pixels"}
_DIGITS = {"height": 0, "width": 0, "brightness": 0, "noise": 4}
TITLES = {
    comparison.EMBEDDING: "what the network sees",
    comparison.CLASSES: "predicted classes",
    comparison.CONFIDENCE: "highest score",
    comparison.STRANGERS: "images like none of the reference",
}


def title(test: Test) -> str:
    """Returns what was compared, such as `brightness`."""
    return TITLES.get(test.kind, test.name)


def change(test: Test, classes: Sequence[str]) -> str:
    """Returns the change in figures: `median 142 → 171`, `Crystals 25 % → 48 %`."""
    if isinstance(test.before, list) and isinstance(test.after, list):
        largest = max(range(len(classes)), key=lambda index: abs(test.after[index] - test.before[index]))
        return f"{classes[largest]} {test.before[largest]:.0%} → {test.after[largest]:.0%}"
    before, after = float(test.before), float(test.after)  # type: ignore[arg-type]
    if test.kind == comparison.STRANGERS:
        return f"{before:.0%} → {after:.0%}"
    if test.kind == comparison.EMBEDDING:
        return f"{test.effect:.1%} of the distance"
    digits = _DIGITS.get(test.name, 3)
    return f"median {before:,.{digits}f} → {after:,.{digits}f}{_UNITS.get(test.name, '')}"


def headline(verdict: Verdict, classes: Sequence[str]) -> str:
    """Returns what is to be said of an imager, in one line."""
    count = f"{verdict.images:,} images"
    alarms = [finding.test for finding in verdict.findings if finding.alarm]
    if verdict.status == UNREADABLE:
        return f"unreadable: {verdict.failed:,} of {verdict.failed + verdict.images:,} images{_also(alarms)}"
    if verdict.status == NEW:
        name, share = verdict.resembles or ("", 0.0)
        like = f"; of the known ones {name} is nearest ({share:.0%} of the images)" if name else ""
        if not verdict.compared_with:
            return f"new imager, not in the reference: {count}{like}"
        return f"not the images of this imager: {title(alarms[0])}, {change(alarms[0], classes)} ({count}){like}"
    if verdict.status == ALARM:
        return f"{title(alarms[0])}: {change(alarms[0], classes)} ({count}){_also(alarms[1:])}"
    if verdict.status == CLEAN:
        return f"no change ({count})"
    if verdict.status == FEW_BEFORE:
        whose = "of this imager" if verdict.compared_with else "in all"
        return (
            f"cannot be told: the reference has {verdict.before:,} images {whose}, too few to compare {count} with; "
            "make it anew with more (marco monitor reference)"
        )
    return f"too few to tell: {count}{f', and {verdict.failed:,} unreadable' if verdict.failed else ''}"


def _also(tests: Sequence[Test]) -> str:
    return f"; also {', '.join(title(test) for test in tests)}" if tests else ""
