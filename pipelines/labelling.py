"""The label scheme of a run, settled when its graph is made: every step is told the same classes."""

from __future__ import annotations

from marco_data.raw_labels import FILE_NAME, find_raw_labels
from marco_data.shards import find_shards
from marco_model.errors import InputError
from marco_model.labels import LabelScheme
from pipelines.configuration import Labels


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
