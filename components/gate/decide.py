"""The decision: a candidate against the champion over the same images (docs/gate.md has the rules and why)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from components.gate import paired
from components.gate.rules import Rules, percent

ACCURACY = "accuracy"
BETTER, NOT_WORSE, SLICE = "better", "not_worse", "slice"


@dataclasses.dataclass(frozen=True)
class Check:
    """One question: `passed` where `difference`, candidate less champion, is at least `limit`.

    `kind`: `better`, `not_worse` or `slice`. `count`: images; `candidate` and `champion`: the share of them labelled
    right; `low` and `high`: the interval of the difference. `limit` is None where no difference of these images would
    be enough (`better`), where they are too few to judge (`slice`), or where there are none (`not_worse`, which then is
    not passed). `p`: of `better`, McNemar's.
    """

    name: str
    kind: str
    count: int
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    limit: float | None
    passed: bool
    p: float | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was found: whether the candidate replaces the champion, why, and every check."""

    blessed: bool
    reasons: list[str]
    checks: list[Check]


def decide(
    candidate: np.ndarray,
    champion: np.ndarray,
    *,
    positive: np.ndarray | None,
    slices: Mapping[str, np.ndarray],
    rules: Rules,
    recall_name: str = "recall/Crystals",
) -> Decision:
    """Judges which images each labels right, bool [n], in the same order.

    `positive`: bool [n], the images of the class whose recall must not fall, or None where that is asked of no class;
    where it is asked and there are no such images, the candidate is refused. `slices`: kind, such as `imager`, to its
    value of each image, str [n].
    """
    whole = {ACCURACY: np.ones(len(candidate), bool)} | ({} if positive is None else {recall_name: positive})
    asked = {name: on for name, on in whole.items() if name == ACCURACY or on.any()}
    margins = {ACCURACY: rules.accuracy_margin, recall_name: rules.recall_margin}
    better = [_better(name, candidate[on], champion[on], len(asked), rules) for name, on in asked.items()]
    checks = [
        _kept(name, NOT_WORSE, candidate[on], champion[on], margins[name], rules.caution, rules)
        for name, on in whole.items()
    ]
    found = dict(_slices(slices))
    large = [name for name, on in found.items() if on.sum() >= rules.smallest_slice]
    tail = (1 - rules.confidence) / 2 / max(1, len(large))
    for name, on in found.items():
        margin = rules.slice_margin if name in large else None
        checks.append(_kept(name, SLICE, candidate[on], champion[on], margin, tail, rules))
    reasons = [] if any(check.passed for check in better) else [_not_better(better, rules)]
    reasons += [_fell(check, rules) for check in checks if not check.passed]
    if reasons:
        return Decision(False, reasons, [*better, *checks])
    return Decision(True, [_is_better(better)], [*better, *checks])


def _slices(slices: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for kind, values in slices.items():
        for value in np.unique(values):
            yield f"{kind}/{value}", values == value


def _better(name: str, candidate: np.ndarray, champion: np.ndarray, comparisons: int, rules: Rules) -> Check:
    found = paired.pairs(candidate, champion)
    level = (1 - rules.confidence) / 2 / comparisons
    p = paired.p_better(found)
    limit = paired.smallest_better(found, level)
    return _check(name, BETTER, candidate, champion, rules, limit=limit, passed=p <= level, p=p)


def _kept(
    name: str, kind: str, candidate: np.ndarray, champion: np.ndarray, margin: float | None, tail: float, rules: Rules
) -> Check:
    """Refuses a fall that is beyond chance, unless it is shown to be smaller than the margin; and what has no images.

    `tail`: how often chance alone makes a fall that counts as beyond it. Without a margin everything passes.
    """
    if not len(candidate):
        return _check(name, kind, candidate, champion, rules, limit=None, passed=False)
    if margin is None:
        return _check(name, kind, candidate, champion, rules, limit=None, passed=True)
    found = paired.pairs(candidate, champion)
    error = paired.interval(found, rules.confidence).error
    shown = margin - paired.normal_quantile((1 - rules.confidence) / 2) * error
    limit = -max(shown, paired.normal_quantile(tail) * error)
    return _check(name, kind, candidate, champion, rules, limit=limit, passed=found.difference >= limit)


def _check(
    name: str,
    kind: str,
    candidate: np.ndarray,
    champion: np.ndarray,
    rules: Rules,
    *,
    limit: float | None,
    passed: bool,
    p: float | None = None,
) -> Check:
    found = paired.pairs(candidate, champion)
    low, high, _ = paired.interval(found, rules.confidence)
    shares = [float(right.mean()) if len(right) else 0.0 for right in (candidate, champion)]
    return Check(name, kind, found.count, *shares, found.difference, low, high, limit, bool(passed), p)


def _told(check: Check) -> str:
    return f"{check.champion:.2%} → {check.candidate:.2%} of {check.count:,} images"


def _is_better(better: list[Check]) -> str:
    return "better than the champion: " + ", ".join(
        f"{check.name} {_told(check)}, p = {check.p:.2g}" for check in better if check.passed
    )


def _not_better(better: list[Check], rules: Rules) -> str:
    level = (1 - rules.confidence) / 2 / len(better)
    told = "; ".join(f"{check.name} {_told(check)}, p = {check.p:.2g}" for check in better)
    return f"no evidence that it is better than the champion: {told}; p of at most {level:g} is wanted"


def _fell(check: Check, rules: Rules) -> str:
    if not check.count:
        return (
            f"{check.name} could not be checked: no image of that class is in the evaluation split; add some, or set "
            "gate.recall_class to another class"
        )
    margin = {SLICE: rules.slice_margin}.get(
        check.kind, rules.accuracy_margin if check.name == ACCURACY else rules.recall_margin
    )
    what = f"accuracy on {check.name.replace('/', ' ', 1)}" if check.kind == SLICE else check.name
    return (
        f"{what} fell by {-check.difference:.2%} ({_told(check)}; {percent(rules.confidence)} interval "
        f"{check.low:+.2%} to {check.high:+.2%}): beyond chance, and not shown to be less than {margin:.1%}"
    )
