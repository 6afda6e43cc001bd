"""One label an image from the answers of several experts; where they don't settle one, the image stays as it was."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from marco_data.relabelling.overlay import Answer
from marco_model.errors import InputError

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
