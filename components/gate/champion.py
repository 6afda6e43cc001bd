"""The model to beat: what names it, and how its scores stand to the candidate's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from marco_model.errors import InputError
from marco_model.model_directory import class_names

SIGNATURE = "serving_examples"
MEND = (
    "publish it again (marco models promote VERSION), name another model_name for models of another kind, or set "
    "gate.champion to another model's URI or to none"
)


def written(model: str, version: str = "") -> str:
    """Returns the parameter `champion`: JSON with the `model`'s URI, a folder or `gs://`, and its `version`."""
    return json.dumps({"model": model, "version": version}, sort_keys=True)


def parsed(text: str) -> dict[str, str] | None:
    """Returns what `written` wrote; None of the empty text, which means that there is no champion."""
    if not text:
        return None
    told = json.loads(text)
    return {"model": str(told["model"]), "version": str(told.get("version", ""))}


def said(champion: dict[str, str]) -> str:
    """Returns what to call it in a sentence."""
    return f"version {champion['version']} at {champion['model']}" if champion["version"] else champion["model"]


def columns(folder: Path, classes: Sequence[str]) -> list[int]:
    """Returns where among the scores of the model in `folder` each of `classes` is.

    Raises `InputError` where its classes are others, or where it cannot be loaded or takes no examples.
    """
    found = class_names(folder)
    if set(found) != set(classes):
        raise InputError(f"its classes are {', '.join(found)}, and the candidate's are {', '.join(classes)}")
    import tensorflow as tf

    try:
        signatures = tf.saved_model.load(str(folder)).signatures
    except Exception as error:  # TensorFlow has no kind of its own for a model that is damaged.
        raise InputError(f"it cannot be loaded ({' '.join(str(error).split())[:200]})") from error
    if SIGNATURE not in signatures:
        raise InputError(f"it has no signature {SIGNATURE}")
    return [found.index(name) for name in classes]
