"""What a training learns of a record beside its class: its source and its raw label (docs/beyond-the-paper.md).

`find` looks through the training records for the names and numbers that there are; `Targets` numbers them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marco_model import errors, recipe as recipes

if TYPE_CHECKING:
    import numpy as np

RAW_LABEL = "image/class/raw"
"""The feature of a record that holds its raw label, a number."""

UNKNOWN = -1
"""The number of a source or raw label that is not known."""

_UNKNOWN_NAMES = ("", "unknown")
"""How records and tables name what is not known (`marco_data.name_tables.UNKNOWN`)."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of a training beside the class; false if there are none.

    `attribute`: the feature that names a record's source. `sources`: their names, in the order of the head's outputs.
    `unlabelled`: those whose labels are hidden from the training. `raw_labels`: names by number, in the order of the
    head's outputs.
    """

    attribute: str = ""
    sources: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    raw_labels: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sources or self.raw_labels)

    def features(self) -> dict[str, Any]:
        """Returns how the features of the targets are parsed: an empty text or `UNKNOWN` where a record has none."""
        import tensorflow as tf

        sources = {self.attribute: tf.io.FixedLenFeature([], tf.string, "")} if self.sources else {}
        raw = {RAW_LABEL: tf.io.FixedLenFeature([], tf.int64, UNKNOWN)} if self.raw_labels else {}
        return {**sources, **raw}


NONE = Targets()


def find(recipe: recipes.Recipe, files: Sequence[str], raw_names: Mapping[int, str] | None = None) -> Targets:
    """Returns the targets that a recipe asks for, as they occur in TFRecord files of training examples.

    `raw_names`: names of raw labels by number. The files are read through, unless the recipe asks for nothing. What is
    named `unknown` is left out, and so are raw labels that only records of `recipe.unlabelled` have.

    Raises `InputError` if there is nothing to tell apart, or if an unlabelled source does not occur.
    """
    by_source = bool(recipe.adversarial_weight or recipe.unlabelled)
    if not (by_source or recipe.raw_weight):
        return NONE
    names = raw_names or {}
    sources, numbers = set[str](), set[int]()
    for of_batch, raw in _values(files, recipe.sources):
        texts = [name.decode("utf-8", "replace") for name in of_batch]
        sources |= set(texts)
        numbers |= {int(n) for n, text in zip(raw, texts, strict=True) if text not in recipe.unlabelled}
    known = tuple(sorted(sources.difference(_UNKNOWN_NAMES)))
    raw_labels = {n: names.get(n, f"raw label {n}") for n in sorted(numbers) if n > UNKNOWN}
    raw_labels = {n: name for n, name in raw_labels.items() if name.casefold() not in _UNKNOWN_NAMES}
    _check(recipe, known, raw_labels)
    return Targets(
        attribute=recipe.sources if by_source else "",
        sources=known if by_source else (),
        unlabelled=recipe.unlabelled,
        raw_labels=raw_labels if recipe.raw_weight else {},
    )


def check_validation(recipe: recipes.Recipe, files: Sequence[str]) -> None:
    """Raises `InputError` if the recipe hides the labels of all records of a validation split, TFRecord files."""
    if not recipe.unlabelled:
        return
    names = {name for of_batch, _ in _values(files, recipe.sources) for name in of_batch}
    found = sorted(name.decode("utf-8", "replace") for name in names)
    if found and set(found) <= set(recipe.unlabelled):
        raise errors.InputError(
            f"recipe.unlabelled hides all labels of the validation split, whose images are of {', '.join(found)}; "
            f"raise data.validation_share, or hide fewer by {recipe.sources}"
        )


def _values(files: Sequence[str], attribute: str) -> "Iterator[tuple[np.ndarray, np.ndarray]]":
    """Yields the sources (bytes) and the raw labels (int64) of batches of records, defaults where there are none."""
    from marco_model import preprocessing

    features = Targets(attribute, ("any",), raw_labels={0: "any"}).features()
    for batch in preprocessing.parsed_records(sorted(files), features):
        yield batch[attribute], batch[RAW_LABEL]


def _check(recipe: recipes.Recipe, sources: Sequence[str], raw_labels: Mapping[int, str]) -> None:
    shown = ", ".join(sources) or "none"
    missing = [name for name in recipe.unlabelled if name not in sources]
    if missing:
        raise errors.InputError(
            f"recipe.unlabelled has {missing[0]!r}, of which there is no training image; by {recipe.sources} there are "
            f"{shown}"
        )
    if recipe.unlabelled and set(sources) <= set(recipe.unlabelled):
        raise errors.InputError(f"recipe.unlabelled names every {recipe.sources}, {shown}; leave one with its labels")
    if recipe.adversarial_weight and len(sources) < 2:
        raise errors.InputError(
            f"recipe.adversarial_weight needs training images of two sources or more; by {recipe.sources} there are "
            f"{shown}: set it to 0, or recipe.sources to what tells the images apart"
        )
    if recipe.raw_weight and len(raw_labels) < 2:
        raise errors.InputError(
            f"recipe.raw_weight needs two raw labels or more; the training images have {list(raw_labels.values())}: "
            "set it to 0, or import the images with raw labels (docs/labels.md)"
        )
