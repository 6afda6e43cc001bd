"""The source of each image that a training may see, by which one source can be left out without reading the images.

The file `sources.npz` of a set of examples holds `names` (str, sorted), and for each role of `ROLES` an array, int32
[records], of places in `names`, in the order of `marco_model.record_index.read_index`.
"""

import collections
import io
from collections.abc import Mapping, Sequence

import numpy as np

from marco_model import errors, store

FILE = "sources.npz"
ROLES = TRAIN, VALIDATION = ("train", "validation")


def write(path: str, sources: Mapping[str, Sequence[str]]) -> None:
    """Writes the file; `sources`: the source of each record by role."""
    names = sorted({name for role in ROLES for name in sources[role]})
    numbers = {name: number for number, name in enumerate(names)}
    columns = {role: np.array([numbers[name] for name in sources[role]], np.int32) for role in ROLES}
    content = io.BytesIO()
    np.savez_compressed(content, names=np.array(names, str), **columns)  # type: ignore[arg-type]
    store.write_bytes(path, content.getvalue())


def seen(path: str, role: str, left_out: str) -> np.ndarray:
    """Returns which records of a role are not of the source `left_out`, bool [records]."""
    content = io.BytesIO(store.read_bytes(path, f"{path} is missing; run the step Sources again"))
    with np.load(content, allow_pickle=False) as columns:
        return np.asarray(columns["names"][columns[role]] != left_out)


def check(sources: Mapping[str, Sequence[str]], attribute: str, values: Sequence[str]) -> None:
    """Raises `InputError` for a value that no training image has, or without which a split would be empty."""
    counts = {role: collections.Counter(sources[role]) for role in ROLES}
    for value in values:
        if not counts[TRAIN][value]:
            known = ", ".join(sorted(counts[TRAIN]))
            raise errors.InputError(f"no training image has the {attribute} {value!r}; leave_out.values may be {known}")
        for role in ROLES:
            if not counts[role].total() - counts[role][value]:
                raise errors.InputError(
                    f"without the {attribute} {value!r} no {role} image is left; leave it out of leave_out.values, or "
                    "add images of others"
                )
