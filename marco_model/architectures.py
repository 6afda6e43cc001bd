"""What is known of each architecture without building it: its input, its blocks in order, its heads.

`inception_v3` is ours (`inception_v3.py`); the others are those of `keras.applications`, which the paper tried without
gain (Bruno et al. 2018): Inception-ResNet-v2 (Szegedy et al. 2016), NASNet-A mobile and large (Zoph et al. 2017).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

from marco_model import depths

AUXILIARY = "AuxLogits-"
"""What the names of the auxiliary head's layers begin with."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as published.

    `input_size` and `smallest_input` are pixels. `blocks` maps the name of each block, from the input on, to the layer
    whose output it starts from; `features` is the layer whose output, averaged, the head classifies. `logits` names the
    layers that have a column a class.
    """

    input_size: int
    smallest_input: int
    blocks: Mapping[str, str]
    features: str
    logits: tuple[str, ...] = ("predictions",)


def _chain(names: list[str], outputs: list[str]) -> dict[str, str]:
    """Maps each of `names` to the output before it; `outputs` begins with what stands before the first block."""
    return dict(zip(names, outputs[: len(names)], strict=True))


def _inception_v3() -> Architecture:
    names = list(depths.BLOCKS)
    return Architecture(
        input_size=599,
        smallest_input=151,
        blocks=_chain(names, ["MaxPool_5a_3x3", *names]),
        features=names[-1],
        logits=("Logits-Conv2d_1c_1x1", f"{AUXILIARY}Conv2d_2b_1x1"),
    )


def _inception_resnet_v2() -> Architecture:
    groups = [("block35", 10, "mixed_6a"), ("block17", 20, "mixed_7a"), ("block8", 10, None)]
    names, outputs = ["mixed_5b"], ["max_pooling2d_1", "mixed_5b"]
    for block, count, reduction in groups:
        blocks = [f"{block}_{number}" for number in range(1, count + 1)]
        names += [*blocks, *([reduction] if reduction else [])]
        outputs += [*(f"{name}_ac" for name in blocks), *([reduction] if reduction else [])]
    return Architecture(input_size=299, smallest_input=75, blocks=_chain(names, outputs), features="conv_7b_ac")


def _nasnet(input_size: int, repeats: int) -> Architecture:
    normal = [
        [f"normal_{number}" for number in range(first, first + repeats)] for first in (0, repeats + 1, 2 * repeats + 1)
    ]
    reductions = ["reduction_stem_1", "reduction_stem_2"]
    between = [[f"reduction_reduce_{repeats}"], [f"reduction_reduce_{2 * repeats}"], []]
    names = reductions + list(itertools.chain(*(a + b for a, b in zip(normal, between, strict=True))))
    outputs = ["stem_bn1", *(name.replace("_", "_concat_", 1) for name in names)]
    return Architecture(input_size=input_size, smallest_input=32, blocks=_chain(names, outputs), features=outputs[-1])


ARCHITECTURES: dict[str, Architecture] = {
    "inception_v3": _inception_v3(),
    "inception_resnet_v2": _inception_resnet_v2(),
    "nasnet_mobile": _nasnet(224, 4),
    "nasnet_large": _nasnet(331, 6),
}
