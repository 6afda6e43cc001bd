"""The training recipe, in one place. Defaults are the paper's (Bruno et al. 2018, "Training"), else TF-Slim's.

TF-Slim's Inception-v3 training script is the paper's stated starting point; its constants stand where the paper is
silent.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

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


Kind = Literal["one_device", "mirrored", "multi_worker", "parameter_server"]


@dataclasses.dataclass(frozen=True)
class Engine:
    """How the steps of a recipe are executed (docs/training.md).

    `kind`: `one_device`; `mirrored`, all GPUs of this machine; `multi_worker`, synchronous workers, and
    `parameter_server`, asynchronous ones as in the paper, both told of each other by `TF_CONFIG`. Of the synchronous
    kinds `recipe.batch_size` is the batch of all replicas together; of `parameter_server` it is each worker's.
    """

    kind: Kind = "one_device"
    # bfloat16 computes in half the bits and keeps weights, averages and losses in float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    # Compiles forward and backward pass; several replicas then need synchronized_batch_norm off.
    xla: bool = False
    # Batch norm over the batch of all replicas, so that their number does not change the result. Asynchronous workers
    # normalise each its own batch.
    synchronized_batch_norm: bool = True

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @property
    def dtype_policy(self) -> str:
        """Keras's name for `precision`."""
        return "mixed_bfloat16" if self.precision == "bfloat16" else "float32"


ONE_DEVICE = Engine()


VARIABLE = "TF_CONFIG"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes by job (`chief`, `worker`, `ps`), each as host:port, and which of them this is."""

    processes: Mapping[str, Sequence[str]]
    job: str
    index: int

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and the model: the chief, or the first worker where there is none."""
        return self.job == "chief" or (self.job == "worker" and self.index == 0 and "chief" not in self.processes)


def from_environment(kind: str, jobs: Sequence[str]) -> Cluster:
    """Returns the cluster of `TF_CONFIG`, which must have every one of `jobs`.

    Raises `InputError` where the variable is missing, is no JSON, or describes another kind of cluster.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        raise InputError(
            f"engine.kind is {kind} and {VARIABLE} is not set; start every process with it (docs/training.md), "
            "or set engine.kind=one_device"
        )
    try:
        told = json.loads(text)
        processes = {job: list(hosts) for job, hosts in told["cluster"].items()}
        job, index = told["task"]["type"], int(told["task"]["index"])
        processes[job][index]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{VARIABLE} is {text[:200]!r}; expected the JSON of TensorFlow's clusters, with cluster and task "
            f"({type(error).__name__}: {error})"
        ) from None
    missing = [name for name in jobs if not processes.get(name)]
    if missing:
        raise InputError(f"{VARIABLE} names no {' and no '.join(missing)}; engine.kind {kind} needs {', '.join(jobs)}")
    return Cluster(processes, job, index)
