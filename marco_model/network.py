"""The network that a configuration describes, and how it is built with its first, random weights.

Keras is imported where it is used: the configuration imports this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Network:
    """What is trained. `initial` names where the weights start: `random`, or `released`, the published classifier's."""

    # `paper` is Table III to the letter; `released` fits the published weights.
    variant: Literal["paper", "released"] = "paper"
    input_size: int = 599
    depth_multiplier: float = 1.0
    # TF-Slim trains Inception-v3 with its auxiliary head; the published weights have one.
    auxiliary: bool = True
    # TF-Slim's inception_arg_scope. A run of a few hundred steps needs a shorter memory, such as 0.9.
    batch_norm_momentum: float = 0.9997
    initial: Literal["random", "released"] = "random"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def build(network: Network, *, num_classes: int, seed: int, dtype_policy: str = "float32") -> keras.Model:
    """Returns the network to train, with random weights that come from `seed` alone.

    Input: float32 [batch, input_size, input_size, 3] in [-1, 1]. Output: logits, float32 [batch, num_classes], or a
    dict of `logits` and `auxiliary_logits`. `dtype_policy` is Keras's, such as `mixed_bfloat16`: layers then compute in
    bfloat16, variables and logits stay float32. `initial.initialise` puts other first weights in.
    """
    import keras

    from marco_model.inception_v3 import inception_v3

    keras.utils.set_random_seed(seed)
    with _policy(dtype_policy):
        return inception_v3(
            variant=network.variant,
            input_size=network.input_size,
            num_classes=num_classes,
            depth_multiplier=network.depth_multiplier,
            auxiliary=network.auxiliary,
            batch_norm_momentum=network.batch_norm_momentum,
        )


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    """Makes `name` the policy of layers made inside."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
