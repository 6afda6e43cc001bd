"""The overlay: what experts say an image shows, in the place of the class that its record came with.

A CSV with the header `image_id,label,rater,date` (docs/relabelling.md). An image may be listed again when it was looked
at again: the newest date counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from marco_data.files import exists, read_bytes
from marco_data.relabelling import csv_lines
from marco_model.errors import InputError
from marco_model.labels import CLASSES, LabelScheme, key

HEADER = ("image_id", "label", "rater", "date")
_MEND = f"give the overlay that `marco relabel merge` wrote, a CSV with the header {','.join(HEADER)}"


class Answer(NamedTuple):
    """What is said of an image, by whom and when (YYYY-MM-DD); `where` is the line that says so."""

    label: str
    rater: str
    date: str
    where: str = ""


def read_overlay(path: str) -> dict[int, Answer]:
    """Returns the newest answer for each image id; raises `InputError` as `read_answers` and `newest_answers` do."""
    return newest_answers(read_answers(path))


def read_answers(path: str) -> list[tuple[int, Answer]]:
    """Returns all lines of an overlay, local or `gs://`, in their order: image id and answer.

    Raises `InputError`, which names the line, for an id or a date that is none, and an empty label or rater.
    """
    answers = []
    for line in csv_lines.read_lines(path, HEADER, _MEND):
        number = csv_lines.image_id(line)
        for name in ("label", "rater"):
            if not line.cells[name]:
                raise InputError(f"{line.where}: {name} is empty for image {number}; fill it in or remove the line")
        answers.append((number, Answer(line.cells["label"], line.cells["rater"], csv_lines.date(line), line.where)))
    return answers


def newest_answers(answers: Iterable[tuple[int, Answer]]) -> dict[int, Answer]:
    """Returns the newest answer for each image id; raises `InputError`, which names both lines, for two of one date."""
    newest: dict[int, Answer] = {}
    for number, answer in answers:
        held = newest.get(number)
        if held and held.date == answer.date and key(held.label) != key(answer.label):
            raise InputError(
                f"{answer.where}: image {number} is {answer.label}, and {held.label} on the same date in {held.where}; "
                "remove one of the lines"
            )
        if held is None or answer.date > held.date:
            newest[number] = answer
    return newest


def check_labels(overlay: Mapping[int, Answer], scheme: LabelScheme) -> None:
    """Raises `InputError`, which names the line, for a label of which the scheme does not know a class.

    A label is what the scheme looks up (`LabelScheme.index_of`): one of its classes, or an entry of its table; of a
    scheme that takes the class from a record's class also one of MARCO's four.
    """
    known = {key(name): name for name in (*scheme.classes, *(CLASSES if scheme.source == "class" else ()))}
    entries = set(map(key, scheme.table))
    for answer in overlay.values():
        if key(answer.label) not in known and key(answer.label) not in entries:
            raise InputError(
                f"{answer.where}: label {answer.label!r} is none of {', '.join(known.values())}, the classes of the "
                f"label scheme {scheme.name!r}; mend the label, or train with the scheme that it is of"
            )


def write_overlay(path: Path, answers: Iterable[tuple[int, Answer]]) -> None:
    """Writes an overlay, aside and renamed."""
    rows = ((number, answer.label, answer.rater, answer.date) for number, answer in answers)
    csv_lines.write_lines(path, HEADER, rows)


def overlay_fingerprint(path: str) -> str:
    """Returns a hash of the overlay's content; raises `InputError` where there is no such file."""
    if not exists(path):
        raise InputError(f"there is no overlay {path!r}; {_MEND}")
    return hashlib.blake2b(read_bytes(path), digest_size=16).hexdigest()
