"""The training recipe, in one place. Defaults are the paper's (Bruno et al. 2018, "Training"), else TF-Slim's.

TF-Slim's Inception-v3 training script is the paper's stated starting point; its constants stand where the paper is
silent.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from marco_model.errors import InputError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How it is trained. Steps are batches; epochs are passes over the training split.

    Raises `InputError` where a value cannot be meant.
    """

    # "about 100 M images": 1.7 M steps of 64, 260 epochs of MARCO.
    steps: int = 1_700_000
    batch_size: int = 64
    # Learning rate 0.045, times 0.94 every two epochs.
    learning_rate: float = 0.045
    learning_rate_decay: float = 0.94
    epochs_per_decay: float = 2.0
    # RMSProp with decay 0.9, momentum 0.9, epsilon 0.1.
    rho: float = 0.9
    momentum: float = 0.9
    epsilon: float = 0.1
    # The published scores never exceed 0.925 = 1 - 0.1 + 0.1 / 4.
    label_smoothing: float = 0.1
    # TF-Slim's loss for the auxiliary head, and its L2 for every convolution's kernel.
    auxiliary_weight: float = 0.4
    weight_decay: float = 0.00004
    # "a running average over a short window": the window is not given.
    average_decay: float = 0.9999
    augment: bool = True
    # Early stopping "on the evaluation set": how often and how long is not given.
    evaluate_every: int = 5_000
    patience: int = 20
    checkpoint_every: int = 1_000
    # Encoded images shuffled at a time; MARCO's shards are mixed already.
    shuffle: int = 4_096
    seed: int = 0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        for name in ("steps", "batch_size", "evaluate_every", "patience", "checkpoint_every", "shuffle"):
            if getattr(self, name) < 1:
                raise InputError(f"recipe.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("rho", "momentum", "label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"recipe.{name} is {getattr(self, name)}; it must be at least 0 and below 1")


def learning_rate_at(recipe: Recipe, step: int, steps_per_epoch: float) -> float:
    """Returns the staircase rate at a step: `learning_rate × decay ^ ⌊epochs / epochs_per_decay⌋`."""
    decays = int(step / steps_per_epoch / recipe.epochs_per_decay)
    return recipe.learning_rate * recipe.learning_rate_decay**decays


def average_decay_at(recipe: Recipe, step: int) -> float:
    """Returns the running average's decay at a step, short at first: `min(decay, (1 + step) / (10 + step))`.

    As TensorFlow's `ExponentialMovingAverage` with `num_updates`, which TF-Slim's script passes.
    """
    return min(recipe.average_decay, (1 + step) / (10 + step))
