"""Where training runs: the part of a configuration that changes how fast a model is made, not which."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

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
