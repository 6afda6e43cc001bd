"""From a configuration to a network with its first weights, and from a trained network to a model on disk."""

from __future__ import annotations

import functools
from typing import Any

import keras

from marco_model import export, preprocessing
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.recipe import Network


def build(network: Network, seed: int) -> keras.Model:
    """Returns the network to train; random weights come from `seed`.

    Raises `InputError` where `network.initial` is `released` and the published weights are not installed or don't fit.
    """
    keras.utils.set_random_seed(seed)
    model = inception_v3(
        variant=network.variant,
        input_size=network.input_size,
        num_classes=len(CLASSES),
        depth_multiplier=network.depth_multiplier,
        auxiliary=network.auxiliary,
        batch_norm_momentum=network.batch_norm_momentum,
    )
    if network.initial == "released":
        from marco_model import released

        released.load_published_weights(model)
    return model


def write_model(model: keras.Model, network: Network, transform: dict[str, Any], name: str, directory: str) -> None:
    """Exports the trained network for serving, with the Transform step's shrink in front."""
    shorter_side = transform["shorter_side"]
    shrink = functools.partial(preprocessing.shrink, shorter_side=shorter_side, quality=transform["quality"])
    export.export(
        model,
        directory,
        classes=CLASSES,
        input_size=network.input_size,
        preprocess=shrink if shorter_side else None,
        metadata={"name": name, "variant": network.variant, "depth_multiplier": network.depth_multiplier},
    )
