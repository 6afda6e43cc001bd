"""What relabelling changed, and how far raters, old labels and classifier agree: numbers, a table, a page."""

from __future__ import annotations

import collections
import importlib.resources
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from marco_data.relabelling.agreement import among, pair, share
from marco_data.relabelling.merging import Merged
from marco_data.relabelling.overlay import Answer
from marco_data.relabelling.sheets import Answers, Keyed

PAPER = {"changed": 0.426, "disagree": 0.22, "share": 0.05}
"""Bruno et al. 2018: one expert relabelled the 5 % that disagreed most with a first model, 42.6 % of them changed; on
such images raters disagree in about 22 %."""


def report(
    images: Mapping[int, Keyed], answers: Answers, merged: Merged, classes: Sequence[str], rule: str
) -> dict[str, Any]:
    """Returns the report; shares are of 0 … 1, None where there is nothing to take a share of.

    `exported`, `answered` (by anyone), `decided`, `undecided`; `splits`: split, or `all` → `exported`, `decided`,
    `changed`, `share_changed` (of the decided) and `by_class`: old label → new label → images; `raters`: rater →
    `answered`, `unanswered`, and its agreement `with_old_labels` and `with_classifier`; `pairs` and `all_raters`:
    agreement of raters; `paper`: the published figures.
    """
    by_rater = {
        rater: {number: one.label for number, one in given.items()} for rater, given in answers.by_rater.items()
    }
    old = {number: one.old_label for number, one in images.items()}
    predicted = {number: one.predicted for number, one in images.items()}
    names = sorted({*classes, *old.values(), *predicted.values()}, key=lambda name: _place(name, classes))
    splits = sorted({one.split for one in images.values()}, reverse=True)
    return {
        "rule": rule,
        "classes": list(classes),
        "exported": len(images),
        "answered": len(merged.decided) + len(merged.undecided),
        "decided": len(merged.decided),
        "undecided": len(merged.undecided),
        "splits": {
            name: _changes({n: one for n, one in images.items() if name in (one.split, "all")}, merged.decided)
            for name in dict.fromkeys([*splits, "all"])
        },
        "raters": {
            rater: {
                "answered": len(given),
                "unanswered": sum(one[2] == rater for one in answers.unanswered),
                "with_old_labels": pair(given, old, names),
                "with_classifier": pair(given, predicted, names),
            }
            for rater, given in by_rater.items()
        },
        "pairs": [
            {"raters": [first, second], **pair(by_rater[first], by_rater[second], names)}
            for first, second in itertools.combinations(by_rater, 2)
        ],
        "all_raters": among(by_rater, names),
        "paper": PAPER,
    }


def _place(name: str, classes: Sequence[str]) -> tuple[int, str]:
    return (list(classes).index(name) if name in classes else len(classes)), name


def _changes(images: Mapping[int, Keyed], decided: Mapping[int, Answer]) -> dict[str, Any]:
    here = [(images[number].old_label, answer.label) for number, answer in decided.items() if number in images]
    changed = sum(old != new for old, new in here)
    by_class: dict[str, dict[str, int]] = {}
    for (old, new), count in sorted(collections.Counter(here).items()):
        by_class.setdefault(old, {})[new] = count
    return {
        "exported": len(images),
        "decided": len(here),
        "changed": changed,
        "share_changed": share(changed, len(here)),
        "by_class": by_class,
    }


def lines(told: Mapping[str, Any]) -> list[str]:
    """Returns the report in a few lines for people."""
    found = [
        f"{told['answered']} of {told['exported']} exported images answered: {told['decided']} decided by the rule "
        f"{told['rule']!r}, {told['undecided']} left as they were"
    ]
    for name, split in told["splits"].items():
        found.append(f"{name}: {split['changed']} of {split['decided']} changed ({percent(split['share_changed'])})")
        found += [
            f"  {old} -> {new} {count}"
            for old, by_new in split["by_class"].items()
            for new, count in by_new.items()
            if old != new and name == "all"
        ]
    for rater, one in told["raters"].items():
        old, predicted = one["with_old_labels"], one["with_classifier"]
        found.append(
            f"{rater}: {one['answered']} answers; agrees with the old labels on {percent(old['agree'])}, with the "
            f"classifier on {percent(predicted['agree'])}"
        )
    found += [
        f"{' and '.join(one['raters'])}: agree on {percent(one['agree'])} of {one['images']}, Cohen's κ "
        f"{number(one['kappa'])}"
        for one in told["pairs"]
    ]
    if len(told["raters"]) > 1:
        among_all = told["all_raters"]
        found.append(
            f"all raters: disagree on {percent(among_all['disagree'])} of {among_all['images']}, Fleiss' κ "
            f"{number(among_all['kappa'])}"
        )
    paper = told["paper"]
    found.append(f"in the paper: {percent(paper['changed'])} changed, raters disagree on {percent(paper['disagree'])}")
    return found


def page(told: Mapping[str, Any]) -> str:
    """Returns the report as a self-contained HTML page."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": percent, "number": number}
    text = importlib.resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text).render(told)


def percent(value: float | None) -> str:
    """Returns a share as people read it."""
    return "–" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """Returns κ as people read it."""
    return "–" if value is None else f"{value:.3f}"
