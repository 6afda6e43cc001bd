"""Classes and their order, and label schemes: which classes are trained, and which labels stand for each."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Literal

from marco_model.errors import InputError

CLASSES: tuple[str, ...] = ("Clear", "Crystals", "Other", "Precipitate")
"""MARCO's, in the order of `image/class/label` and of the published classifier's outputs (Bruno et al. 2018)."""

TEN_CLASSES: dict[str, tuple[str, ...]] = {
    "Clear": ("clear",),
    "Crystals": ("crystals",),
    "Garbage": ("garbage",),
    "Phase separation": ("phase",),
    "Phase separation and crystals": ("phase", "crystals"),
    "Phase separation and precipitate": ("phase", "precipitate"),
    "Precipitate": ("precipitate",),
    "Precipitate and crystals": ("precipitate", "crystals"),
    "Precipitate and skin": ("precipitate", "skin"),
    "Skin": ("skin",),
}
"""HWMRI's ten classes (Snell et al. 2008; Cumbaa and Jurisica 2010), each with the contents of the drop."""

# The names of these contents in the two papers and in the scores of HWMRI's own classifier (docs/labels.md).
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "clear": ("clear", "clear drop"),
    "crystals": ("crystals", "crystal"),
    "garbage": ("garbage", "junk"),
    "phase": ("phase separation", "phase"),
    "precipitate": ("precipitate", "precipitation", "precip"),
    "skin": ("skin", "skin effect"),
}

Table = Mapping[str, str | None]
"""From a label to the class that it stands for, or to None to leave out records with it."""


@dataclasses.dataclass(frozen=True)
class LabelScheme:
    """Which classes are trained, and which class each label of a record stands for.

    Attributes:
        name: for messages.
        classes: in the order of their indices, at least two.
        source: what is looked up: a record's `class`, one of MARCO's four, or its `raw` label.
        table: label → class, or None to leave out records with it. A raw label is listed by its name or its number; the
            number is looked up first. A label that has the name of a class needs no entry.
        others: what happens to a record whose label has no entry: `quarantine` or `leave_out`.

    Names that differ only in case, punctuation or an `and` are the same. Raises `InputError` for a table that
    contradicts itself or names an unknown class, and for classes that are fewer than two, alike or empty.
    """

    name: str
    classes: tuple[str, ...]
    source: Literal["class", "raw"] = "raw"
    table: Table = dataclasses.field(default_factory=dict)
    others: Literal["quarantine", "leave_out"] = "quarantine"

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise InputError(f"labels.classes is {list(self.classes)}; name at least two")
        for name in self.classes:
            if not name.strip() or name != name.strip() or not name.isprintable():
                raise InputError(f"labels.classes has {name!r}; give a name on one line, without spaces around it")
        _require_unlike("labels.classes", self.classes)
        _ = self._indices

    @functools.cached_property
    def _indices(self) -> dict[str, int | None]:
        """Class index by the key of a label; None for labels that are left out."""
        by_class = {key(name): index for index, name in enumerate(self.classes)}
        _require_unlike(f"the table of labels.{self.name}", self.table)
        if self.source == "class":
            unknown = [label for label in self.table if key(label) not in map(key, CLASSES)]
            if unknown:
                raise InputError(f"labels.from_class has {unknown[0]!r}; MARCO's classes are {', '.join(CLASSES)}")
        indices: dict[str, int | None] = dict(by_class)
        for label, name in self.table.items():
            if name is not None and key(name) not in by_class:
                raise InputError(f"labels: {label!r} stands for {name!r}; the classes are {', '.join(self.classes)}")
            indices[key(label)] = None if name is None else by_class[key(name)]
        return indices

    def index_of(self, name: str | None, number: int | None = None) -> int | None:
        """Returns the class index of a label, or None if records with it are left out.

        Raises `KeyError` for a label that the scheme does not know.
        """
        for label in (number, name):
            if label is not None and _as_key(label) in self._indices:
                return self._indices[_as_key(label)]
        if self.others == "leave_out":
            return None
        raise KeyError(name if name is not None else number)

    @property
    def goes_by_names(self) -> bool:
        """Whether the table can only be used if raw labels have names."""
        return self.source == "raw" and not any(_NUMBER.fullmatch(label) for label in self.table)


_NUMBER = re.compile(r"-?\d{1,19}")


def key(label: str) -> str:
    """Returns what identifies a label: its number, or its words without case, punctuation and `and`."""
    if _NUMBER.fullmatch(label.strip()):
        return f"#{int(label)}"
    words = [word for word in re.findall(r"[^\W_]+", label.casefold()) if word != "and"]
    return " ".join(words) or label.strip().casefold()


def _as_key(label: str | int) -> str:
    return f"#{label}" if isinstance(label, int) else key(label)


def _require_unlike(what: str, labels: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        if key(label) in seen:
            raise InputError(f"{what} has {seen[key(label)]!r} and {label!r}, which count as one; give one of them")
        seen[key(label)] = label


def _ten_way_table() -> dict[str, str | None]:
    """Returns all spellings of the ten classes, with their parts in any order."""
    return {
        " ".join(words): name
        for name, parts in TEN_CLASSES.items()
        for order in itertools.permutations(parts)
        for words in itertools.product(*(_SPELLINGS[part] for part in order))
    }


FOUR = LabelScheme("four", CLASSES, source="class")
HWMRI_TEN = LabelScheme("hwmri10", tuple(TEN_CLASSES), table=_ten_way_table())


def with_entries(scheme: LabelScheme, table: Table, others: Literal["quarantine", "leave_out"]) -> LabelScheme:
    """Returns the scheme with entries added to its table, where they replace entries for the same label."""
    added = set(map(key, table))
    kept = {label: name for label, name in scheme.table.items() if key(label) not in added}
    return dataclasses.replace(scheme, table={**kept, **table}, others=others)


def raw_scheme(
    raw_labels: Mapping[int, str], table: Table, others: Literal["quarantine", "leave_out"] = "quarantine"
) -> LabelScheme:
    """Returns the scheme whose classes are the names of raw labels (number → name), in the order of their numbers.

    Labels with the same name are one class. `table` renames, merges (two labels, one name) or leaves out (None) some of
    them. Raises `InputError` for an entry that is not a raw label, and for two entries for the same label.
    """
    _require_unlike("labels.from_raw", table)
    entries = {key(label): name for label, name in table.items()}
    known = {name_key for number, name in raw_labels.items() for name_key in (f"#{number}", key(name))}
    for label in table:
        if key(label) not in known:
            raise InputError(f"labels.from_raw has {label!r}, which is not a raw label of labels-raw.csv")
    resolved: dict[str, str | None] = {}
    classes: dict[str, str] = {}
    for number, name in sorted(raw_labels.items()):
        stands_for = entries.get(f"#{number}", entries.get(key(name), name))
        if stands_for is not None:
            stands_for = classes.setdefault(key(stands_for), stands_for)
        resolved[str(number)] = stands_for
    return LabelScheme("raw", tuple(classes.values()), table=resolved, others=others)
