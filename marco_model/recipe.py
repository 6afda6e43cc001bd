"""How a network is trained (`Recipe`), where its steps run (`Engine`), and the processes that share them (`Cluster`).

Defaults of the recipe are the paper's (Bruno et al. 2018, "Training"). Where the paper is silent they are those of
TF-Slim's Inception-v3 training script, which the paper names as its starting point.
"""

import dataclasses
import json
import math
import operator
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from marco_model.errors import InputError


class Range(NamedTuple):
    """Finite numbers within limits, which have the names that pydantic gives them."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value is in the range; NaN and infinities are in none."""
        limits = self._asdict().items()
        return abs(value) < math.inf and all(
            getattr(operator, name)(value, limit) for name, limit in limits if limit is not None
        )

    def __str__(self) -> str:
        words = zip(("at least", "above", "at most", "below"), self, strict=True)
        return " and ".join(f"{word} {limit}" for word, limit in words if limit is not None)


def check_ranges(section: str, settings: Any, ranges: Mapping[str, Range]) -> None:
    """Raises `InputError` for the first field of `settings`, a `section`, that is outside its range; None is in all."""
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None and not allowed.holds(value):
            finite = "" if abs(value) < math.inf else "a finite number, "
            raise InputError(f"{section}.{name} is {value}; it must be {finite}{allowed}")


# More fits neither 32 bits nor anybody's time.
_MOST = 2**31 - 1
_COUNT, _WEIGHT, _SHARE = Range(ge=1, le=_MOST), Range(ge=0), Range(ge=0, lt=1)

RANGES: dict[str, Range] = {
    "steps": _COUNT,
    "batch_size": _COUNT,
    "stated_for_batch": _COUNT,
    # Training at the rate 0 shows what a network is worth as it is.
    "learning_rate": Range(ge=0),
    "learning_rate_decay": Range(gt=0, le=1),
    "epochs_per_decay": Range(gt=0),
    "warm_up_steps": Range(ge=0, le=_MOST),
    "rho": _SHARE,
    "momentum": _SHARE,
    # Without it RMSProp divides by 0 where a gradient is 0.
    "epsilon": Range(gt=0),
    "label_smoothing": _SHARE,
    "auxiliary_weight": _WEIGHT,
    "weight_decay": _WEIGHT,
    "average_decay": _SHARE,
    "colour_distortion": _WEIGHT,
    "adversarial_weight": _WEIGHT,
    "raw_weight": _WEIGHT,
    "evaluate_every": _COUNT,
    "patience": _COUNT,
    "checkpoint_every": _COUNT,
    # Keras draws from 32 bits, and the seeds of heads are some higher.
    "seed": Range(ge=0, le=_MOST),
}
"""What each number of a recipe may be."""

WINDOW_SHARE = "give the smallest and the largest share, above 0 and at most 1, or null for native windows"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained. Steps are batches; epochs are passes over the training split.

    Raises `InputError` for a value out of range.
    """

    # "about 100 M images": 1.7 M steps of 64, 260 epochs of MARCO.
    steps: int = 1_700_000
    batch_size: int = 64
    # The batch size that this recipe is stated for, where the steps are to take another: `effective` carries it over.
    # None: it is stated for `batch_size`.
    stated_for_batch: int | None = None
    # Learning rate 0.045, times 0.94 every two epochs.
    learning_rate: float = 0.045
    learning_rate_decay: float = 0.94
    epochs_per_decay: float = 2.0
    # Steps in which the rate rises in line to its value. The paper has none; large batches need it (Goyal et al. 2017).
    warm_up_steps: int = 0
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
    # Times the ranges of brightness, saturation, hue and contrast; with more of it the colours of a source count for
    # less (Tellez et al. 2019; docs/beyond-the-paper.md).
    colour_distortion: float = 1.0
    # Smallest and largest side of a training window as a share of the image's shorter side, scaled to the network's
    # input; the image of an evaluation has the share 1. None: native windows, the paper's (docs/model.md, "Images").
    window_share: tuple[float, float] | None = None
    # Domain-adversarial training (Ganin et al. 2016): the weight of the loss of a head that tells sources apart, whose
    # gradient is reversed below it; 0 for none (docs/beyond-the-paper.md).
    adversarial_weight: float = 0.0
    # What a record's source is, to that head and to `unlabelled`.
    sources: Literal["institution", "imager"] = "institution"
    # Sources of whose records only the image and the source are used, not the labels.
    unlabelled: tuple[str, ...] = ()
    # The weight of the loss of a second head, of the raw labels; 0 for none.
    raw_weight: float = 0.0
    # Early stopping "on the evaluation set": how often and how long is not given.
    evaluate_every: int = 5_000
    patience: int = 20
    checkpoint_every: int = 1_000
    seed: int = 0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_ranges("recipe", self, RANGES)
        if self.window_share is not None:
            smallest, largest = self.window_share
            if not 0 < smallest <= largest <= 1:
                raise InputError(f"recipe.window_share is {[smallest, largest]}; {WINDOW_SHARE}")

    def adversarial_by(self, attribute: str) -> bool:
        """Whether training is adversarial over the sources of this attribute."""
        return bool(self.adversarial_weight) and self.sources == attribute

    @property
    def batch_ratio(self) -> float:
        """How many times the batch that the recipe is stated for goes into `batch_size`."""
        return self.batch_size / (self.stated_for_batch or self.batch_size)

    def kept_per_step(self, share: float) -> float:
        """Returns the share that a running average keeps in a step of `batch_size`, from that of a stated step.

        Both keep the same share of what they were the same number of images ago.
        """
        return float(share**self.batch_ratio)

    def effective(self) -> "Recipe":
        """Returns the recipe as its steps are taken: every number for `batch_size` (docs/training.md).

        Numbers of steps are divided by the ratio r of the batch sizes and rounded up, so that the images stay the same
        but for less than a batch; what the running average keeps is raised to the power r. The learning rate is
        multiplied by r where epsilon dominates the mean square, so that RMSProp acts as SGD with momentum (Goyal et al.
        2017), and by the root of r where the mean square normalises the gradient (Malladi et al. 2022).
        """
        if self.stated_for_batch is None:
            return self
        ratio = self.batch_ratio
        names = ("steps", "warm_up_steps", "evaluate_every", "checkpoint_every")
        counts = {name: -(-getattr(self, name) * self.stated_for_batch // self.batch_size) for name in names}
        return dataclasses.replace(
            self,
            learning_rate=self.learning_rate * (ratio if self.epsilon >= LARGE_EPSILON else math.sqrt(ratio)),
            average_decay=self.kept_per_step(self.average_decay),
            stated_for_batch=None,
            **counts,
        )


LATER = ("stated_for_batch", "colour_distortion", "adversarial_weight", "sources", "unlabelled", "raw_weight")
"""Fields that, as they are by default, name a training as before there were such fields."""

LARGE_EPSILON = 0.001
"""From here on RMSProp's epsilon exceeds the mean squares of the gradients, which are some 1e-5 (docs/training.md)."""


def learning_rate_at(recipe: Recipe, step: int, steps_per_epoch: float) -> float:
    """Returns the staircase rate at a step: `learning_rate × decay ^ ⌊epochs / epochs_per_decay⌋`, warmed up."""
    decays = int(step / steps_per_epoch / recipe.epochs_per_decay)
    warm = min((step + 1) / recipe.warm_up_steps, 1.0) if recipe.warm_up_steps else 1.0
    return warm * recipe.learning_rate * recipe.learning_rate_decay**decays


def average_decay_at(recipe: Recipe, step: int) -> float:
    """Returns the running average's decay at a step, short at first: `min(decay, (1 + step) / (10 + step))`.

    As TensorFlow's `ExponentialMovingAverage` with `num_updates`, which TF-Slim's script passes.
    """
    return min(recipe.average_decay, (1 + step) / (10 + step))


def reversal_at(recipe: Recipe, step: int) -> float:
    """Returns the strength of the gradient's reversal at a step, `2 / (1 + exp(−10 p)) − 1` at progress p of the steps.

    From 0, so that a head that knows nothing yet does no harm, towards 1: Ganin and Lempitsky 2015.
    """
    return 2.0 / (1.0 + math.exp(-10.0 * step / recipe.steps)) - 1.0


Kind = Literal["one_device", "mirrored", "multi_worker", "parameter_server"]


@dataclasses.dataclass(frozen=True)
class Engine:
    """How the steps of a recipe are executed (docs/training.md).

    `kind`: `one_device`; `mirrored`, all GPUs of this machine; `multi_worker`, synchronous workers; `parameter_server`,
    asynchronous workers as in the paper. The workers of the last two find each other through `TF_CONFIG`. With the
    synchronous kinds `recipe.batch_size` is the batch of all replicas together; with `parameter_server` each worker's.
    """

    kind: Kind = "one_device"
    # bfloat16 computes in half the bits and keeps weights, averages and losses in float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    # Compiles the step, each replica's for itself.
    xla: bool = False
    # Batch norm over the batch of all replicas, so that their number does not change the result; None does so where a
    # replica has fewer than `ENOUGH_IMAGES`. Each asynchronous worker normalises its own batch.
    synchronized_batch_norm: bool | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def synchronizes_batch_norm(self, images: int) -> bool:
        """Whether the moments of batch norm are those of all replicas, each of which has so many images."""
        return self.synchronized_batch_norm is True or (self.synchronized_batch_norm is None and images < ENOUGH_IMAGES)

    @property
    def dtype_policy(self) -> str:
        """Keras's name for `precision`."""
        return "mixed_bfloat16" if self.precision == "bfloat16" else "float32"


ONE_DEVICE = Engine()

TENSORFLOW_DEFAULTS = {
    # oneDNN's kernels, without which a training step takes a third longer (docs/training.md, "On a CPU").
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # By default each record that is read from a bucket would cost 64 MiB from its place on.
    "GCS_READAHEAD_BUFFER_SIZE_BYTES": "65536",
}
"""Environment variables that TensorFlow reads when it is imported."""


def set_tensorflow_defaults() -> None:
    """Sets those of `TENSORFLOW_DEFAULTS` that are not set; whoever trains calls it before TensorFlow is imported."""
    for name, value in TENSORFLOW_DEFAULTS.items():
        if name != "TF_ENABLE_ONEDNN_OPTS" or platform.machine() in ("x86_64", "AMD64"):
            os.environ.setdefault(name, value)


ENOUGH_IMAGES = 32
"""Images of a replica whose own moments serve batch norm: the paper's batch was 32 before memory allowed for 64."""

CLUSTER_VARIABLE = "TF_CONFIG"
"""The environment variable that describes a cluster to each of its processes, as TensorFlow defines it."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes by job (`chief`, `worker`, `ps`), each as host:port, and which of them this is."""

    processes: Mapping[str, Sequence[str]]
    job: str
    index: int

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and the model: the chief, or else the first worker."""
        return self.job == "chief" or (self.job == "worker" and self.index == 0 and "chief" not in self.processes)


def cluster_from_environment(kind: str, jobs: Sequence[str]) -> Cluster:
    """Returns the cluster that `TF_CONFIG` describes, which must have each of `jobs`.

    Raises `InputError` if the variable is missing, is not JSON, or describes another kind of cluster.
    """
    text = os.environ.get(CLUSTER_VARIABLE)
    if not text:
        raise InputError(
            f"engine.kind is {kind} and {CLUSTER_VARIABLE} is not set; start every process with it (docs/training.md), "
            "or set engine.kind=one_device"
        )
    try:
        description = json.loads(text)
        processes = {job: list(hosts) for job, hosts in description["cluster"].items()}
        job, index = description["task"]["type"], int(description["task"]["index"])
        processes[job][index]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{CLUSTER_VARIABLE} is {text[:200]!r}; expected the JSON of TensorFlow's clusters, with cluster and task "
            f"({type(error).__name__}: {error})"
        ) from None
    missing = [name for name in jobs if not processes.get(name)]
    if missing:
        raise InputError(
            f"{CLUSTER_VARIABLE} names no {' and no '.join(missing)}; engine.kind {kind} needs {', '.join(jobs)}"
        )
    return Cluster(processes, job, index)
