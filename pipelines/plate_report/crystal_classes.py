"""Which of a classifier's classes mean crystals: their scores, added up, colour the map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marco_model.errors import InputError


def crystal_classes(classes: Sequence[str], chosen: Sequence[str] = ()) -> list[int]:
    """Returns the indices of the classes named in `chosen`, or else of all that have `crystal` in their names.

    Case does not matter. Raises InputError for a name that the model does not have, or where nothing is found.
    """
    names = [name.casefold() for name in classes]
    for name in chosen:
        if name.casefold() not in names:
            raise InputError(f"the model has no class {name!r}; give one of {', '.join(classes)}")
    wanted = {name.casefold() for name in chosen}
    found = [index for index, name in enumerate(names) if (name in wanted if wanted else "crystal" in name)]
    if not found:
        raise InputError(
            f"none of the model's classes is named after crystals; say with --crystal-class which of "
            f"{', '.join(classes)} to rank by"
        )
    return found


def crystal_score(scores: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Adds up the scores of the classes that mean crystals: [..., classes] to [...]."""
    return scores[..., list(indices)].sum(axis=-1)
