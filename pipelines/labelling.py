"""The configuration's section `labels`, and the label scheme of a run, settled when its graph is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pydantic

from marco_data.raw_labels import FILE_NAME, find_raw_labels
from marco_data.shards import find_shards
from marco_model.errors import InputError
from marco_model.labels import FOUR, HWMRI_TEN, LabelScheme, raw_scheme, with_entries


class Labels(pydantic.BaseModel):
    """Which classes are trained, and what of a record each is taken from (docs/labels.md)."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    # four: MARCO's classes, which is meant where nothing is said; hwmri10: HWMRI's ten; raw: the raw labels themselves.
    scheme: Literal["four", "hwmri10", "raw"] | None = None
    # Own classes in the place of a scheme, in the order of their indices.
    classes: tuple[str, ...] = ()
    # A raw label, by name or number -> the class it stands for; null leaves such records out.
    # Strictly a number: YAML reads the label `yes` as true, which would else count as 1.
    from_raw: dict[str | pydantic.StrictInt, str | None] = {}
    # One of MARCO's four classes -> the own class that it becomes; null leaves such records out.
    from_class: dict[str, str | None] = {}
    # What becomes of a record whose label no entry names.
    others: Literal["quarantine", "leave_out"] = "quarantine"

    @pydantic.model_validator(mode="after")
    def _says_one_thing(self) -> Labels:
        scheme = self.scheme or ("four" if not self.classes else None)
        if self.scheme and self.classes:
            raise ValueError(f"labels has both scheme {self.scheme!r} and classes; give one of them")
        if self.from_raw and self.from_class:
            raise ValueError("labels has both from_raw and from_class; a class is taken from one of them")
        if self.from_class and scheme:
            raise ValueError("labels.from_class needs labels.classes, which it maps to")
        if self.from_raw and scheme == "four":
            raise ValueError(
                "labels.from_raw needs labels.classes, or another scheme than four, which ignores raw labels"
            )
        self.label_scheme()
        return self

    def label_scheme(self, raw_labels: Mapping[int, str] | None = None) -> LabelScheme | None:
        """Returns the scheme; None for `raw` where the names of the raw labels, number -> name, are not given.

        Raises `InputError` where the table contradicts itself.
        """
        table = {str(label): name for label, name in self.from_raw.items()}
        if self.classes and self.from_class:
            return LabelScheme("classes", self.classes, "class", self.from_class, self.others)
        if self.classes:
            return LabelScheme("classes", self.classes, "raw", table, self.others)
        if self.scheme == "hwmri10":
            return with_entries(HWMRI_TEN, table, self.others)
        if self.scheme == "raw":
            return raw_scheme(raw_labels, table, self.others) if raw_labels is not None else None
        return FOUR


def label_scheme(labels: Labels, source: str) -> LabelScheme:
    """Returns the scheme that a configuration asks for; only `raw` looks at the shards' `labels-raw.csv` at `source`.

    Raises `InputError` where that file cannot be found or read from here.
    """
    scheme = labels.label_scheme()
    if scheme:
        return scheme
    mend = "list labels.classes, which needs no file while the pipeline is made"
    try:
        raw_labels = find_raw_labels([source], (shard.path for shard in find_shards([source])))
    except InputError as error:
        raise InputError(f"labels.scheme raw takes its classes from {FILE_NAME}: {error}; or {mend}") from error
    if raw_labels is None:
        raise InputError(f"labels.scheme raw finds no {FILE_NAME} at {source!r} to take its classes from; {mend}")
    found = labels.label_scheme(raw_labels)
    assert found is not None
    return found
