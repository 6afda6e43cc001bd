"""From a trained network to a model on disk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras

from marco_model import export, preprocessing
from marco_model.network import Network


def write_model(
    model: keras.Model,
    network: Network,
    transform: dict[str, Any],
    name: str,
    directory: str,
    classes: Sequence[str],
    temperature: float = 1.0,
) -> None:
    """Exports the trained network for serving, with the Transform step's shrink in front and its temperature."""
    shorter_side = transform["shorter_side"]
    shrink = functools.partial(preprocessing.shrink, shorter_side=shorter_side, quality=transform["quality"])
    export.export(
        model,
        directory,
        classes=classes,
        input_size=network.input_size,
        preprocess=shrink if shorter_side else None,
        temperature=temperature,
        metadata={"name": name, **network.facts()},
    )
