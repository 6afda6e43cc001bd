"""Whether a candidate replaces the champion: both tables of predictions compared image by image, and `decision.json`.

Needs neither TFX nor TensorFlow. The rules are explained in docs/gate.md.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components import evaluations, settings, significance
from marco_model import errors, store

DECISION_FILE = "decision.json"
ACCURACY = "accuracy"
BETTER, NOT_WORSE, SLICE, CONSTANT = "better", "not_worse", "slice", "constant"
MORE_IMAGES = "more evaluation images may show a gain"
_KEY = ["shard", "index"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One question: `passed` if `difference`, candidate less champion, is at least `limit`.

    `kind`: `better`, `not_worse`, `slice`, or `constant`, whose champion gives the same answer always. `count`: images;
    `candidate` and `champion`: the share of them labelled right; `low` and `high`: the interval of the difference.
    `limit` is None if no difference of these images would be enough (`better`, `constant`), if they are too few to
    judge (`slice`), or if there are none (`not_worse`, which then is not passed). `p`: McNemar's, of `better` and
    `constant` only.
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

    def __str__(self) -> str:
        return f"{self.champion:.2%} → {self.candidate:.2%} of {self.count:,} images"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the candidate replaces the champion, why, and every check."""

    blessed: bool
    reasons: list[str]
    checks: list[Check]


def compare(
    candidate: pd.DataFrame,
    champion: pd.DataFrame,
    columns: Sequence[int],
    classes: Sequence[str],
    rules: settings.Rules,
    rival: str = "the champion",
) -> Verdict:
    """Decides between two tables of predictions (`components.evaluations`).

    `columns`: where among the champion's scores each of `classes` is. `rival`: what it is, for the reasons. Raises
    `InputError` if the tables are not of the same examples.
    """
    candidate, champion = aligned(candidate, champion)
    labels = candidate["label"].to_numpy()
    recall = rules.recall_index(classes)
    return decide(
        evaluations.scores_of(candidate).argmax(axis=1) == labels,
        evaluations.scores_of(champion)[:, list(columns)].argmax(axis=1) == labels,
        positive=None if recall is None else labels == recall,
        slices=evaluations.slice_masks(candidate, rules.cross),
        rules=rules,
        recall_name="" if recall is None else f"recall/{classes[recall]}",
        plates=evaluations.plates(candidate),
        rival=rival,
    )


def aligned(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns both tables in the order of (`shard`, `index`); raises `InputError` if they are of different examples."""
    first, second = (frame.sort_values(_KEY, ignore_index=True) for frame in (first, second))
    same = len(first) == len(second) and all(
        np.array_equal(first[name].to_numpy(), second[name].to_numpy()) for name in [*_KEY, "image_id", "label"]
    )
    if not same:
        raise errors.InputError(
            f"the predictions are of different examples ({len(first):,} and {len(second):,}); judge both on the same"
        )
    return first, second


def decide(
    candidate: np.ndarray,
    champion: np.ndarray,
    *,
    positive: np.ndarray | None,
    slices: Iterable[tuple[evaluations.SliceKey, np.ndarray]],
    rules: settings.Rules,
    recall_name: str = "recall/Crystals",
    plates: np.ndarray | None = None,
    rival: str = "the champion",
) -> Verdict:
    """Decides by which images each of the two labels right, bool [n], in the same order.

    `positive`: bool [n], the images of the class whose recall must not fall, or None if there is no such class; if
    there is one without images, the candidate is refused. `slices`: as `components.evaluations.slice_masks` yields.
    `plates`: int [n], the same number for images of the same plate.
    """
    plates = np.arange(len(candidate)) if plates is None else plates
    whole = {ACCURACY: np.ones(len(candidate), bool)} | ({} if positive is None else {recall_name: positive})
    margins = {ACCURACY: rules.accuracy_margin, recall_name: rules.recall_margin}
    compared = {name: mask for name, mask in whole.items() if name == ACCURACY or mask.any()}
    level = (1 - rules.confidence) / 2 / len(compared)
    parts = [(key.name, mask, bool(mask.sum() >= rules.smallest_slice)) for key, mask in slices]
    tail = (1 - rules.confidence) / 2 / max(1, sum(large for _, _, large in parts))

    def check(name: str, kind: str, mask: np.ndarray, **bounds: Any) -> Check:
        return _check(name, kind, candidate[mask], champion[mask], plates[mask], rules, **bounds)

    better = [check(name, BETTER, mask, level=level) for name, mask in compared.items()]
    checks = [
        *(check(name, NOT_WORSE, mask, margin=margins[name], tail=rules.caution) for name, mask in whole.items()),
        *(check(name, SLICE, mask, margin=rules.slice_margin if big else None, tail=tail) for name, mask, big in parts),
    ]
    results = {check: f"{check.name} {check}, p = {check.p:.2g}" for check in better}
    gains = ", ".join(result for check, result in results.items() if check.passed)
    reasons = [_fell(check, rules) for check in checks if not check.passed]
    if not gains:
        shown = "; ".join(results.values())
        reason = f"no evidence that it is better than {rival}: {shown}; p of at most {level:g} is wanted"
        reasons.insert(0, reason)
    return Verdict(not reasons, reasons or [f"better than {rival}: {gains}"], [*better, *checks])


def decide_alone(candidate: pd.DataFrame, classes: Sequence[str], rules: settings.Rules) -> Verdict:
    """Decides about a candidate without a champion: it must be better than always answering the commonest class.

    `candidate`: a table of predictions. Only accuracy counts: a model that guesses finds some
    crystals, too.
    """
    labels = candidate["label"].to_numpy()
    counts = np.bincount(labels, minlength=len(classes))
    commonest = int(counts.argmax())
    name = classes[commonest]
    if counts[commonest] == len(labels):
        reason = (
            f"all {len(labels):,} evaluation images are {name}: no model can be shown to be better than always "
            "answering that; evaluate on images of several classes"
        )
        return Verdict(False, [reason], [])
    right = evaluations.scores_of(candidate).argmax(axis=1) == labels
    level = (1 - rules.confidence) / 2
    check = _check(ACCURACY, CONSTANT, right, labels == commonest, evaluations.plates(candidate), rules, level=level)
    if check.passed:
        reason = f"there is no champion to beat, and it is better than always answering {name}: {check.name} {check}"
        return Verdict(True, [f"{reason}, p = {check.p:.2g}"], [check])
    reason = (
        f"no evidence that it is better than always answering {name}: {check.name} {check.candidate:.2%} against "
        f"{check.champion:.2%} of {check.count:,} images, p = {check.p:.2g}; p of at most {level:g} is wanted"
    )
    return Verdict(False, [reason, *([MORE_IMAGES] if check.difference > 0 else [])], [check])


def _check(
    name: str,
    kind: str,
    candidate: np.ndarray,
    champion: np.ndarray,
    plates: np.ndarray,
    rules: settings.Rules,
    *,
    level: float | None = None,
    margin: float | None = None,
    tail: float = 0.5,
) -> Check:
    """Checks which images, bool [n], each labels right; `plates`: int [n].

    With a `level`, `p` must be at most that. Otherwise a fall that is beyond chance is refused, unless it is shown to
    be smaller than the `margin`, and so is what has no images; without a margin everything else passes. `tail`: how
    often chance alone makes a fall that counts as beyond it.
    """
    counts = significance.pairs(candidate, champion, plates)
    low, high, error = significance.paired_interval(counts, rules.confidence)
    own, other = (float(right.mean()) if len(right) else 0.0 for right in (candidate, champion))
    limit = p = None
    passed = counts.count > 0
    if level is not None:
        limit, p = significance.smallest_better(counts, level), significance.p_better(counts)
        passed = p <= level
    elif passed and margin is not None:
        shown = margin - significance.normal_quantile((1 - rules.confidence) / 2) * error
        limit = -max(shown, significance.normal_quantile(tail) * error)
        passed = counts.difference >= limit
    return Check(name, kind, counts.count, own, other, counts.difference, low, high, limit, passed, p)


def _fell(check: Check, rules: settings.Rules) -> str:
    if not check.count:
        return (
            f"{check.name} could not be checked: no image of that class is in the evaluation split; add some, or set "
            "gate.recall_class to another class"
        )
    what, margin = check.name, rules.accuracy_margin if check.name == ACCURACY else rules.recall_margin
    if check.kind == SLICE:
        what, margin = f"accuracy on {check.name.replace('/', ' ', 1)}", rules.slice_margin
    return (
        f"{what} fell by {-check.difference:.2%} ({check}; {settings.percent(rules.confidence)} interval "
        f"{check.low:+.2%} to {check.high:+.2%}): beyond chance, and not shown to be less than {margin:.1%}"
    )


def read_decision(decision_uri: str) -> dict[str, Any]:
    """Returns the content of `decision.json` in a decision artifact; raises `InputError` if it is missing."""
    missing = f"no decision at {decision_uri}: {DECISION_FILE} is missing; run the ChampionGate first"
    return store.read_json(f"{decision_uri.rstrip('/')}/{DECISION_FILE}", missing)


def decision_content(verdict: Verdict, champion: dict[str, str] | None) -> str:
    """Returns the text of `decision.json`; `champion` is `components.champion.parse_champion`'s."""
    content = {
        "blessed": verdict.blessed,
        "champion": champion,
        "reasons": verdict.reasons,
        "checks": [dataclasses.asdict(check) for check in verdict.checks],
    }
    return json.dumps(content, indent=1) + "\n"
