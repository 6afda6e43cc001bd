"""Two tables of predictions over the same examples, paired and decided; needs neither TFX nor TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components import paired
from components.evaluations import CROSS, CROSS_NAME, SLICES, TIMES
from components.prediction_table import scores_of
from components.settings import Rules, percent
from marco_model.errors import InputError
from marco_model.store import exists, read_bytes

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
class Verdict:
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
) -> Verdict:
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
        return Verdict(False, reasons, [*better, *checks])
    return Verdict(True, [_is_better(better)], [*better, *checks])


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
    error = paired.paired_interval(found, rules.confidence).error
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
    low, high, _ = paired.paired_interval(found, rules.confidence)
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


DECISION_FILE = "decision.json"


def read_decision(decision_uri: str) -> dict[str, Any]:
    """Returns the content of `decision.json` in a decision artifact; raises `InputError` where there is none."""
    path = f"{decision_uri.rstrip('/')}/{DECISION_FILE}"
    if not exists(path):
        raise InputError(f"no decision at {decision_uri}: {DECISION_FILE} is missing; run the ChampionGate first")
    return dict(json.loads(read_bytes(path)))


def decision_content(decision: Verdict, champion: dict[str, str] | None) -> str:
    """Returns what is written."""
    told = {
        "blessed": decision.blessed,
        "champion": champion,
        "reasons": decision.reasons,
        "checks": [dataclasses.asdict(check) for check in decision.checks],
    }
    return json.dumps(told, indent=1) + "\n"


if TYPE_CHECKING:
    import pandas as pd

_KEY = ["shard", "index"]


def compare(
    candidate: pd.DataFrame, champion: pd.DataFrame, columns: Sequence[int], classes: Sequence[str], rules: Rules
) -> Verdict:
    """Decides between two tables of `components.prediction_table`.

    `columns`: where among the champion's scores each of `classes` is. Raises `InputError` where the tables are not of
    the same examples.
    """
    candidate, champion = aligned(candidate, champion)
    labels = candidate["label"].to_numpy()
    recall = rules.recall_index(classes)
    return decide(
        scores_of(candidate).argmax(axis=1) == labels,
        scores_of(champion)[:, list(columns)].argmax(axis=1) == labels,
        positive=None if recall is None else labels == recall,
        slices=slices_of(candidate, rules.cross),
        rules=rules,
        recall_name="" if recall is None else f"recall/{classes[recall]}",
    )


def aligned(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns both in the order of (`shard`, `index`); raises `InputError` where they are not of the same examples."""
    one, other = (frame.sort_values(_KEY, ignore_index=True) for frame in (one, other))
    same = len(one) == len(other) and all(
        np.array_equal(one[name].to_numpy(), other[name].to_numpy()) for name in [*_KEY, "image_id", "label"]
    )
    if not same:
        raise InputError(
            f"the predictions are of different examples ({len(one):,} and {len(other):,}); judge both on the same"
        )
    return one, other


def slices_of(frame: pd.DataFrame, cross: bool) -> dict[str, np.ndarray]:
    """Returns the value of each example, str [n], by kind of slice; with `cross` of institution and imager together."""
    found = {name: frame[name].to_numpy().astype(str) for name in SLICES}
    if cross:
        pairs = zip(*(found[name] for name in CROSS), strict=True)
        found[CROSS_NAME] = np.array([TIMES.join(pair) for pair in pairs], str)
    return found
