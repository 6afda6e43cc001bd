"""One label an image from the answers of several experts; where they don't settle one, the image stays as it was."""

from __future__ import annotations

import collections
import dataclasses
import importlib.resources
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data import overlay
from marco_data.overlay import Answer, newest_answers, read_answers, write_overlay
from marco_model.errors import InputError
from marco_model.labels import CLASSES, key
from marco_model.store import exists, read_bytes

ABOUT = "export.json"
_SHEET = ("image_id", "label", "rater", "date")
_TOLD = 5


class Keyed(NamedTuple):
    """An exported image, as `key.csv` has it: its split, and what it was labelled and predicted."""

    split: str
    old_label: str
    predicted: str


@dataclasses.dataclass(frozen=True)
class Answers:
    """`by_rater`: rater → image id → answer, raters in the order of their sheets. The rest says what to know of sheets.

    A rater is named as where the name, whatever its case, stands first.

    `unanswered`: (where, image id, rater) of lines with an empty label. `repeated`: lines that say the same again.
    """

    by_rater: Mapping[str, Mapping[int, Answer]]
    unanswered: Sequence[tuple[str, int, str]]
    repeated: Sequence[str]


def read_key(path: str) -> tuple[dict[int, Keyed], tuple[str, ...]]:
    """Returns the exported images by id, and the classes: those of the `export.json` beside it, or MARCO's four."""
    mend = "give the key.csv that `marco relabel export` wrote"
    lines = overlay.read_lines(path, ("image_id", "split", "old_label", "predicted"), mend)
    images = {
        overlay.image_id(line): Keyed(*(line.cells[name] for name in ("split", "old_label", "predicted")))
        for line in lines
    }
    folder, slash, _ = path.rpartition("/")
    about = f"{folder}{slash}{ABOUT}"
    return images, tuple(json.loads(read_bytes(about))["classes"]) if exists(about) else CLASSES


def read_sheets(paths: Sequence[str], images: Mapping[int, Keyed], classes: Sequence[str], date: str = "") -> Answers:
    """Reads all sheets; `date` stands where a line with a label has none.

    A sheet's name stands for a rater that is not filled in. Raises `InputError` that names each file and line at fault,
    the first few of many: an unknown class or image, a date that is none, or two labels of one rater for one image.
    """
    reader = _Reader(images, {key(name): name for name in classes}, date)
    for path in paths:
        for line in overlay.read_lines(path, ("image_id", "label"), "give a sheet that `marco relabel export` wrote"):
            try:
                reader.take(path, line)
            except InputError as error:
                reader.problems.append(str(error))
    if reader.problems:
        more = len(reader.problems) - _TOLD
        told = "; ".join(reader.problems[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(f"{len(reader.problems)} answers cannot be used, nothing was written: {told}")
    return Answers(reader.by_rater, reader.unanswered, reader.repeated)


class _Reader:
    def __init__(self, images: Mapping[int, Keyed], classes: Mapping[str, str], date: str) -> None:
        self._images, self._classes, self._date = images, classes, date
        self._raters: dict[str, str] = {}
        self.by_rater: dict[str, dict[int, Answer]] = {}
        self.unanswered: list[tuple[str, int, str]] = []
        self.repeated: list[str] = []
        self.problems: list[str] = []

    def take(self, path: str, line: overlay.Line) -> None:
        """Takes a line; raises `InputError` where it cannot be used."""
        cells = {**dict.fromkeys(_SHEET, ""), **line.cells}
        number = overlay.image_id(line)
        if number not in self._images:
            raise InputError(f"{line.where}: image {number} was not exported; give the key.csv of this sheet")
        named = cells["rater"] or Path(path).stem.removeprefix("sheet-")
        rater = self._raters.setdefault(named.casefold(), named)
        answers = self.by_rater.setdefault(rater, {})
        if not cells["label"]:
            self.unanswered.append((line.where, number, rater))
            return
        label = self._classes.get(key(cells["label"]))
        if label is None:
            raise InputError(f"{line.where}: class {cells['label']!r} is none of {', '.join(self._classes.values())}")
        if not cells["date"] and not self._date:
            raise InputError(f"{line.where}: date is empty; fill it in, or give --date YYYY-MM-DD for all such lines")
        dated = line._replace(cells={**cells, "date": cells["date"] or self._date})
        answer = Answer(label, rater, overlay.date(dated), line.where)
        held = answers.get(number)
        if held and held.label != label:
            raise InputError(
                f"{line.where}: {rater} says {label} of image {number}, and {held.label} in {held.where}; keep one"
            )
        if held:
            self.repeated.append(f"{line.where} repeats {held.where}")
        else:
            answers[number] = answer


JOINED = "+"


@dataclasses.dataclass(frozen=True)
class Merged:
    """`decided`: image id → the label with those who gave it, joined by `+`, their newest date, and all their lines.

    `undecided`: image id → all answers, of images on which the rule settles nothing.
    """

    decided: Mapping[int, Answer]
    undecided: Mapping[int, Sequence[Answer]]


def merge(by_rater: Mapping[str, Mapping[int, Answer]], rule: str = "majority") -> Merged:
    """Combines the answers, rater by rater in the order of precedence.

    `majority`: the label that most gave, a tie settles nothing. `unanimous`: the label that all gave who answered.
    `first`: the answer of the first rater that has one. Raises `InputError` for another rule.
    """
    if rule not in RULES:
        raise InputError(f"--rule is {rule!r}; give one of {', '.join(RULES)}")
    by_image: dict[int, list[Answer]] = {}
    for answers in by_rater.values():
        for number, answer in answers.items():
            by_image.setdefault(number, []).append(answer)
    decided, undecided = {}, {}
    for number, answers_of_it in sorted(by_image.items()):
        label = RULES[rule](answers_of_it)
        if label is None:
            undecided[number] = answers_of_it
        else:
            theirs = answers_of_it[:1] if rule == "first" else [one for one in answers_of_it if one.label == label]
            raters, date = JOINED.join(one.rater for one in theirs), max(one.date for one in theirs)
            decided[number] = Answer(label, raters, date, " and ".join(one.where for one in theirs))
    return Merged(decided, undecided)


def _majority(answers: Sequence[Answer]) -> str | None:
    counts = collections.Counter(answer.label for answer in answers).most_common(2)
    return None if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


def _unanimous(answers: Sequence[Answer]) -> str | None:
    labels = {answer.label for answer in answers}
    return labels.pop() if len(labels) == 1 else None


def _first(answers: Sequence[Answer]) -> str | None:
    return answers[0].label


RULES: dict[str, Callable[[Sequence[Answer]], str | None]] = {
    "majority": _majority,
    "unanimous": _unanimous,
    "first": _first,
}


def fleiss_kappa(counts: np.ndarray) -> float:
    """Returns Fleiss' κ of `counts`, int [subjects, categories]: how many raters put a subject into a category.

    All subjects have the same number of raters, at least two. NaN where all answers are one category, when chance alone
    agrees wholly. Source: Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychol. Bull. 76, 378.
    Raises `ValueError` for other numbers of raters.
    """
    counts = np.asarray(counts, np.float64)
    raters = counts.sum(axis=1)
    if not len(counts) or (raters != raters[0]).any() or raters[0] < 2:
        raise ValueError(
            f"each subject needs the same number of raters, at least 2; got {sorted(set(raters.tolist()))}"
        )
    agreement = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    expected = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    return math.nan if expected == 1 else float((agreement.mean() - expected) / (1 - expected))


def pair(first: Mapping[int, str], second: Mapping[int, str], classes: Sequence[str]) -> dict[str, Any]:
    """Returns `images` that both labelled, the share `agree` and Cohen's `kappa`; None where they are undefined."""
    shared = sorted(first.keys() & second.keys())
    mine, theirs = [first[image] for image in shared], [second[image] for image in shared]
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    return {"images": len(shared), "agree": share(same, len(shared)), "kappa": _cohen(mine, theirs, classes)}


def among(by_rater: Mapping[str, Mapping[int, str]], classes: Sequence[str]) -> dict[str, Any]:
    """Returns, of the `images` that every one of two or more raters labelled, the share they `disagree` on and `kappa`.

    `kappa` is Fleiss'; None where there are no such images, or it is undefined.
    """
    raters = list(by_rater.values())
    shared = sorted(set.intersection(*map(set, raters))) if len(raters) > 1 else []
    counts = np.array([[sum(one[image] == name for one in raters) for name in classes] for image in shared])
    split = int((counts.max(axis=1) < len(raters)).sum()) if shared else 0
    kappa = fleiss_kappa(counts) if shared else math.nan
    return {
        "images": len(shared),
        "disagree": share(split, len(shared)),
        "kappa": None if math.isnan(kappa) else kappa,
    }


def share(part: int, whole: int) -> float | None:
    """Returns part ÷ whole, None of nothing."""
    return part / whole if whole else None


def _cohen(mine: Sequence[str], theirs: Sequence[str], classes: Sequence[str]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if not mine or len({*mine, *theirs}) == 1:
        return None
    return float(cohen_kappa_score(mine, theirs, labels=[name for name in classes if name in {*mine, *theirs}]))


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


UNDECIDED_HEADER = ("image_id", "rater", "label", "date", "where")
UNANSWERED_HEADER = ("image_id", "rater", "where")


def merge_sheets(
    sheets: Sequence[str], key_path: str, output: Path, *, rule: str = "majority", date: str = "", earlier: str = ""
) -> tuple[dict[str, Any], Answers]:
    """Writes the overlay `output` and, beside it, what tells of it; returns the report and the answers.

    Beside `overlay.csv`: `overlay.report.json`, `overlay.report.html`, `overlay.undecided.csv` with every answer to an
    image that the rule leaves as it was, and `overlay.unanswered.csv` with the lines without a label. `earlier`: an
    overlay of before, all of whose lines go in first. Raises `InputError`, with nothing written, for what cannot be
    used, and where an answer is not newer than another one in `earlier`.
    """
    images, classes = read_key(key_path)
    answers = read_sheets(sheets, images, classes, date)
    merged = merge(answers.by_rater, rule)
    before = read_answers(earlier) if earlier else []
    _refuse_answers_that_do_not_count(newest_answers(before), merged.decided)
    told = report(images, answers, merged, classes, rule)
    lines = ((number, one._replace(where="")) for number, one in (*before, *merged.decided.items()))
    write_overlay(output, dict.fromkeys(lines))  # Once each, though the same sheets be merged again.
    output.with_suffix(".report.json").write_text(json.dumps(told, indent=2) + "\n")
    output.with_suffix(".report.html").write_text(page(told), encoding="utf-8")
    _write_leftovers(output, merged, answers)
    return told, answers


def _refuse_answers_that_do_not_count(before: Mapping[int, Answer], decided: Mapping[int, Answer]) -> None:
    """Of an overlay the newest date counts; the report would tell of a change that is none."""
    for number, answer in decided.items():
        held = before.get(number)
        if held and held.date >= answer.date and key(held.label) != key(answer.label):
            raise InputError(
                f"{held.where}: image {number} is {held.label} on {held.date}, and {answer.label} on {answer.date} in "
                f"{answer.where}, which is no later; remove that line of the earlier overlay, or this answer"
            )


def _write_leftovers(output: Path, merged: Merged, answers: Answers) -> None:
    undecided = [
        (number, one.rater, one.label, one.date, one.where) for number, ones in merged.undecided.items() for one in ones
    ]
    unanswered = [(number, rater, where) for where, number, rater in answers.unanswered]
    for kind, header, rows in (
        (".undecided.csv", UNDECIDED_HEADER, undecided),
        (".unanswered.csv", UNANSWERED_HEADER, unanswered),
    ):
        path = output.with_suffix(kind)
        path.unlink(missing_ok=True)
        if rows:
            overlay.write_lines(path, header, rows)
