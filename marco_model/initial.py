"""Where the weights of a training start, if not at random."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from marco_model.network import Network


def initialise(model: keras.Model, network: Network, classes: Sequence[str]) -> None:
    """Fills `model`, built from `network` for `classes`, with the weights that `network.initial` names.

    Raises `InputError` where these are not to be had or don't fit.
    """
    if network.initial == "released":
        from marco_model import released

        released.load_published_weights(model)
