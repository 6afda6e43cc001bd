"""The network that a configuration describes, and how it is built with its first, random weights.

Keras is imported where it is used: the configuration imports this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from marco_model import depths
from marco_model.errors import InputError

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


if TYPE_CHECKING:
    import keras

RANDOM = "random"
RELEASED = "released"


@dataclasses.dataclass(frozen=True)
class Network:
    """What is trained, from where, and which part of it.

    What is left out is the architecture's own and reads so once made: `Network().input_size` is 599. Raises
    `InputError` for what the architecture does not have.
    """

    # The paper's network, or one that it tried without gain.
    architecture: Literal["inception_v3", "inception_resnet_v2", "nasnet_mobile", "nasnet_large"] = "inception_v3"
    # Of inception_v3: `paper` is Table III to the letter; `released`, which the published weights fit.
    variant: Literal["paper", "released"] | None = None
    # Pixels; 0 is the architecture's own.
    input_size: int = 0
    # Of inception_v3.
    depth_multiplier: float = 1.0
    # TF-Slim trains Inception-v3 with its auxiliary head; the published weights have one. Of no use where only what
    # stands above it is trained.
    auxiliary: bool | None = None
    # TF-Slim's inception_arg_scope. A run of a few hundred steps needs a shorter memory, such as 0.9.
    batch_norm_momentum: float = 0.9997
    # Where the weights start: `random`; `released`, the published classifier's; or a model of ours: its folder, or one
    # of numbered versions, local or gs://.
    initial: str = RANDOM
    # What is trained: `all`, `head`, or everything from a block on, such as `Mixed_7a`.
    trainable: str = "all"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Fills in what was left out; checks what no type can say."""
        own = self._own()
        if self.trainable not in ("all", "head", *own.blocks):
            raise InputError(
                f"network.trainable is {self.trainable!r}; give all, head, or the first block of {self.architecture} "
                f"to train: {', '.join(own.blocks)}"
            )
        if self.architecture != "inception_v3":
            self._refuse_what_inception_v3_alone_has()
        self._set("input_size", self.input_size or own.input_size)
        if self.input_size < own.smallest_input:
            raise InputError(
                f"network.input_size is {self.input_size}; {self.architecture} takes at least {own.smallest_input}"
            )
        if self.architecture == "inception_v3":
            self._set("variant", self.variant or (RELEASED if self.initial == RELEASED else "paper"))
        if self.auxiliary is None:
            self._set("auxiliary", self._an_auxiliary_head_helps())
        if self.initial == RELEASED and (self.variant != RELEASED or self.depth_multiplier != 1.0):
            raise InputError(
                f"network.initial is released, with {self.architecture}, variant {self.variant} and depth_multiplier "
                f"{self.depth_multiplier}; the published weights fit inception_v3, variant released, at 1.0 alone"
            )

    def facts(self) -> dict[str, Any]:
        """Returns what decides the shapes of the weights below the heads, as an exported model keeps it."""
        return {name: getattr(self, name) for name in ("architecture", "variant", "depth_multiplier")}

    def _own(self) -> Architecture:
        if self.architecture not in ARCHITECTURES:
            raise InputError(f"network.architecture is {self.architecture!r}; give one of {', '.join(ARCHITECTURES)}")
        return ARCHITECTURES[self.architecture]

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _refuse_what_inception_v3_alone_has(self) -> None:
        for name, default in (("variant", None), ("depth_multiplier", 1.0), ("auxiliary", None)):
            value = getattr(self, name)
            if value != default and value is not False:
                raise InputError(
                    f"network.{name} is {value!r}, which inception_v3 alone has; remove it for {self.architecture}"
                )

    def _an_auxiliary_head_helps(self) -> bool:
        """Whether something below the auxiliary head, which stands on `Mixed_6e`, is trained."""
        if self.architecture != "inception_v3" or self.trainable == "head":
            return False
        blocks = list(self._own().blocks)
        return self.trainable == "all" or blocks.index(self.trainable) <= blocks.index("Mixed_6e")


def build(network: Network, *, num_classes: int, seed: int, dtype_policy: str = "float32") -> keras.Model:
    """Returns the network to train, with random weights that come from `seed` alone.

    Input: float32 [batch, input_size, input_size, 3] in [-1, 1]. Output: logits, float32 [batch, num_classes], or a
    dict of `logits` and `auxiliary_logits`. `dtype_policy` is Keras's, such as `mixed_bfloat16`: layers then compute in
    bfloat16, variables and logits stay float32. What `network.trainable` leaves out is frozen: its variables are not
    among `trainable_variables`, its batch norms use their moving statistics and don't move them.
    `initial.initialise` puts other first weights in.
    """
    import keras

    keras.utils.set_random_seed(seed)
    with _policy(dtype_policy):
        model = _untrained(network, num_classes)
    _freeze(model, network)
    return model


def _untrained(network: Network, num_classes: int) -> keras.Model:
    if network.architecture != "inception_v3":
        from marco_model.applications import application

        return application(
            network.architecture,
            input_size=network.input_size,
            num_classes=num_classes,
            batch_norm_momentum=network.batch_norm_momentum,
        )
    from marco_model.inception_v3 import inception_v3

    return inception_v3(
        variant=str(network.variant),
        input_size=network.input_size,
        num_classes=num_classes,
        depth_multiplier=network.depth_multiplier,
        auxiliary=bool(network.auxiliary),
        batch_norm_momentum=network.batch_norm_momentum,
    )


def _freeze(model: keras.Model, network: Network) -> None:
    """Freezes the layers below what `network.trainable` names; the heads are always trained."""
    import keras

    if network.trainable == "all":
        return
    architecture = ARCHITECTURES[network.architecture]
    last = architecture.features if network.trainable == "head" else architecture.blocks[network.trainable]
    for layer in keras.Model(model.inputs, model.get_layer(last).output).layers:
        layer.trainable = False


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
