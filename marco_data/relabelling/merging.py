"""From the sheets of several experts to an overlay with one label per image, and a report (`marco relabel merge`).

An image that the rule does not decide keeps its label.
"""

import collections
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marco_data import name_tables, overlay, pages
from marco_data.relabelling import sheets
from marco_model import errors, labels, store

PAPER = {"changed": 0.426, "disagree": 0.22, "share": 0.05}
"""Bruno et al. 2018: one expert relabelled the 5 % that disagreed most with a first model, 42.6 % of them changed; on
such images raters disagree in about 22 %."""


def merge_sheets(
    paths: Sequence[str],
    key_path: str,
    output: Path,
    *,
    data: Sequence[str] = (),
    rule: str = "majority",
    date: str = "",
    earlier: str = "",
) -> tuple[dict[str, Any], sheets.Answers]:
    """Writes the overlay `output` and its report beside it; returns the report and the answers.

    Beside `overlay.csv`: `overlay.report.json`, `overlay.report.html`, `overlay.undecided.csv` with every answer to an
    image that the rule does not decide, and `overlay.unanswered.csv` with the lines without a label. `date` is that of
    answers without one. `earlier`: an earlier overlay, whose lines all come first.

    Instead of a key, sheets of plate pages take `data`, the shards that have their images. Answers to images that are
    not in them are listed in `overlay.unmatched.csv`, which `marco data import --csv` reads.

    Raises `InputError`, with nothing written, for input that cannot be used and for an answer that is not newer than a
    different one in `earlier`.
    """
    if bool(key_path) == bool(data):
        raise errors.InputError("give --key for sheets of `marco relabel export`, or --data for sheets of a plate page")
    store.refuse_inputs([("--output", output)], [*paths, key_path])
    ids = None
    if data:
        images, classes, ids = sheets.read_records(paths, data)
    else:
        images, classes = sheets.read_key(key_path)
    answers = sheets.read_sheets(paths, images, classes, date, ids)
    merged = merge(answers.by_rater, rule)
    before = overlay.read_answers(earlier) if earlier else []
    _refuse_outdated_answers(overlay.newest_answers(before), merged.decided)
    report = build_report(images, answers, merged, classes, rule)
    lines = ((image, answer._replace(where="")) for image, answer in (*before, *merged.decided.items()))
    undecided = [
        (image, answer.rater, answer.label, answer.date, answer.where)
        for image, of_image in merged.undecided.items()
        for answer in of_image
    ]
    unanswered = [(image, rater, where) for where, image, rater in answers.unanswered]
    texts = ((".report.json", json.dumps(report, indent=2) + "\n"), (".report.html", report_page(report)))
    with store.sole_writer(output.parent, seconds=60):  # All files are of one merge.
        overlay.write_overlay(output, dict.fromkeys(lines))  # Without repeats, if the same sheets are merged again.
        for ending, text in texts:
            with store.whole_file(output.with_suffix(ending)) as file:
                file.write(text)
        for ending, header, rows in (
            (".undecided.csv", ("image_id", "rater", "label", "date", "where"), undecided),
            (".unanswered.csv", ("image_id", "rater", "where"), unanswered),
            (".unmatched.csv", ("filename", "label", "rater", "where"), answers.unmatched),
        ):
            path = output.with_suffix(ending)
            if rows:
                name_tables.write_csv(path, header, rows)
            else:
                path.unlink(missing_ok=True)
    return report, answers


def _refuse_outdated_answers(before: Mapping[int, overlay.Answer], decided: Mapping[int, overlay.Answer]) -> None:
    """Only the newest date of an overlay counts, so the report would list a change that does not take place."""
    for image, answer in decided.items():
        old = before.get(image)
        if old and old.date >= answer.date and labels.key(old.label) != labels.key(answer.label):
            raise errors.InputError(
                f"{old.where}: image {image} is {old.label} on {old.date}, and {answer.label} on {answer.date} in "
                f"{answer.where}, which is no later; remove that line of the earlier overlay, or this answer"
            )


@dataclasses.dataclass(frozen=True)
class MergedAnswers:
    """`decided`: image id → the label with the raters who gave it, joined by `+`, their newest date and their lines.

    `undecided`: image id → all answers, for images that the rule does not decide.
    """

    decided: Mapping[int, overlay.Answer]
    undecided: Mapping[int, Sequence[overlay.Answer]]


def merge(by_rater: Mapping[str, Mapping[int, overlay.Answer]], rule: str = "majority") -> MergedAnswers:
    """Combines the answers; raters are in the order of precedence.

    `majority`: the label that most raters gave; a tie decides nothing. `unanimous`: the label that all gave who
    answered. `first`: the answer of the first rater that has one. Raises `InputError` for another rule.
    """
    if rule not in RULES:
        raise errors.InputError(f"--rule is {rule!r}; give one of {', '.join(RULES)}")
    by_image: dict[int, list[overlay.Answer]] = {}
    for by_id in by_rater.values():
        for image, answer in by_id.items():
            by_image.setdefault(image, []).append(answer)
    decided, undecided = {}, {}
    for image, answers in sorted(by_image.items()):
        label = RULES[rule](answers)
        if label is None:
            undecided[image] = answers
            continue
        deciding = answers[:1] if rule == "first" else [answer for answer in answers if answer.label == label]
        raters = "+".join(answer.rater for answer in deciding)
        lines = " and ".join(answer.where for answer in deciding)
        decided[image] = overlay.Answer(label, raters, max(answer.date for answer in deciding), lines)
    return MergedAnswers(decided, undecided)


def _majority(answers: Sequence[overlay.Answer]) -> str | None:
    counts = collections.Counter(answer.label for answer in answers).most_common(2)
    return None if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


RULES: dict[str, Callable[[Sequence[overlay.Answer]], str | None]] = {
    "majority": _majority,
    "unanimous": lambda answers: answers[0].label if len({answer.label for answer in answers}) == 1 else None,
    "first": lambda answers: answers[0].label,
}


def fleiss_kappa(counts: np.ndarray) -> float:
    """Returns Fleiss' κ of `counts`, int [subjects, categories]: how many raters put a subject into a category.

    All subjects have the same number of raters, at least two. NaN if all answers are one category, where chance alone
    gives full agreement. Source: Fleiss 1971, "Measuring nominal scale agreement among many raters", Psychol. Bull. 76,
    378. Raises `ValueError` for other numbers of raters.
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


def pair_agreement(first: Mapping[int, str], second: Mapping[int, str], classes: Sequence[str]) -> dict[str, Any]:
    """Returns `images` that both labelled, the share `agree` and Cohen's `kappa`; None where they are undefined."""
    from sklearn.metrics import cohen_kappa_score

    shared = sorted(first.keys() & second.keys())
    mine, theirs = [first[image] for image in shared], [second[image] for image in shared]
    equal = sum(a == b for a, b in zip(mine, theirs, strict=True))
    used = [name for name in classes if name in {*mine, *theirs}]
    kappa = float(cohen_kappa_score(mine, theirs, labels=used)) if len(used) > 1 else None
    return {"images": len(shared), "agree": _share(equal, len(shared)), "kappa": kappa}


def group_agreement(by_rater: Mapping[str, Mapping[int, str]], classes: Sequence[str]) -> dict[str, Any]:
    """Returns, of the `images` that every one of two or more raters labelled, the share they `disagree` on and `kappa`.

    `kappa` is Fleiss'; None if there are no such images or it is undefined.
    """
    raters = list(by_rater.values())
    shared = sorted(set.intersection(*map(set, raters))) if len(raters) > 1 else []
    counts = np.array([[sum(rater[image] == name for rater in raters) for name in classes] for image in shared])
    split = int((counts.max(axis=1) < len(raters)).sum()) if shared else 0
    kappa = fleiss_kappa(counts) if shared else math.nan
    disagree = _share(split, len(shared))
    return {"images": len(shared), "disagree": disagree, "kappa": None if math.isnan(kappa) else kappa}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def build_report(
    images: Mapping[int, sheets.ExportedImage],
    answers: sheets.Answers,
    merged: MergedAnswers,
    classes: Sequence[str],
    rule: str,
) -> dict[str, Any]:
    """Returns the report; shares are of 0 … 1, None if there is nothing to take a share of.

    `exported`, `answered` (by anyone), `decided`, `undecided`; `splits`: split, or `all` → `exported`, `decided`,
    `changed`, `share_changed` (of the decided) and `by_class`: old label → new label → images; `raters`: rater →
    `answered`, `unanswered`, and the agreement `with_old_labels` and `with_classifier`; `pairs` and `all_raters`:
    agreement of raters; `paper`: the published figures.
    """
    by_rater = {
        rater: {image: answer.label for image, answer in by_id.items()} for rater, by_id in answers.by_rater.items()
    }
    old = {number: image.old_label for number, image in images.items()}
    predicted = {number: image.predicted for number, image in images.items()}
    # The classes in their order, then other labels.
    names = list(dict.fromkeys([*classes, *sorted({*old.values(), *predicted.values()})]))
    splits = sorted({image.split for image in images.values()}, reverse=True)
    return {
        "rule": rule,
        "classes": list(classes),
        "exported": len(images),
        "answered": len(merged.decided) + len(merged.undecided),
        "decided": len(merged.decided),
        "undecided": len(merged.undecided),
        "splits": {
            name: _changes({n: image for n, image in images.items() if name in (image.split, "all")}, merged.decided)
            for name in dict.fromkeys([*splits, "all"])
        },
        "raters": {
            rater: {
                "answered": len(by_id),
                "unanswered": sum(name == rater for _, _, name in answers.unanswered),
                "with_old_labels": pair_agreement(by_id, old, names),
                "with_classifier": pair_agreement(by_id, predicted, names),
            }
            for rater, by_id in by_rater.items()
        },
        "pairs": [
            {"raters": [first, second], **pair_agreement(by_rater[first], by_rater[second], names)}
            for first, second in itertools.combinations(by_rater, 2)
        ],
        "all_raters": group_agreement(by_rater, names),
        "paper": PAPER,
    }


def _changes(images: Mapping[int, sheets.ExportedImage], decided: Mapping[int, overlay.Answer]) -> dict[str, Any]:
    pairs = [(images[number].old_label, answer.label) for number, answer in decided.items() if number in images]
    changed = sum(old != new for old, new in pairs)
    by_class: dict[str, dict[str, int]] = {}
    for (old, new), count in sorted(collections.Counter(pairs).items()):
        by_class.setdefault(old, {})[new] = count
    return {
        "exported": len(images),
        "decided": len(pairs),
        "changed": changed,
        "share_changed": _share(changed, len(pairs)),
        "by_class": by_class,
    }


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Returns the report in a few lines for people."""
    lines = [
        f"{report['answered']} of {report['exported']} exported images answered: {report['decided']} decided by the "
        f"rule {report['rule']!r}, {report['undecided']} left as they were"
    ]
    for name, split in report["splits"].items():
        lines.append(f"{name}: {split['changed']} of {split['decided']} changed ({_percent(split['share_changed'])})")
    lines += [
        f"  {old} -> {new} {count}"
        for old, by_new in report["splits"]["all"]["by_class"].items()
        for new, count in by_new.items()
        if old != new
    ]
    for name, rater in report["raters"].items():
        lines.append(
            f"{name}: {rater['answered']} answers; agrees with the old labels on "
            f"{_percent(rater['with_old_labels']['agree'])}, with the classifier on "
            f"{_percent(rater['with_classifier']['agree'])}"
        )
    for pair in report["pairs"]:
        agree, kappa = _percent(pair["agree"]), _decimals(pair["kappa"])
        lines.append(f"{' and '.join(pair['raters'])}: agree on {agree} of {pair['images']}, Cohen's κ {kappa}")
    if len(report["raters"]) > 1:
        group = report["all_raters"]
        disagree, kappa = _percent(group["disagree"]), _decimals(group["kappa"])
        lines.append(f"all raters: disagree on {disagree} of {group['images']}, Fleiss' κ {kappa}")
    changed, disagree = _percent(report["paper"]["changed"]), _percent(report["paper"]["disagree"])
    return [*lines, f"in the paper: {changed} changed, raters disagree on {disagree}"]


def report_page(report: Mapping[str, Any]) -> str:
    """Returns the report as a self-contained HTML page."""
    templates = pages.environment(Path(__file__).parent)
    templates.filters |= {"percent": _percent, "decimals": _decimals}
    return templates.get_template("report.html.jinja").render(report)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
