"""The networks that a configuration can describe, and how one is built with its first, random weights.

`ARCHITECTURES` is what is known of each, `Network` is the section `network` of a configuration, and `build` makes the
Keras model: MARCO's Inception-v3 (`inception_v3.py`), or a network of `keras.applications` with one input, raw logits
and stable names. The configuration imports this file, so Keras is imported only to build.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from marco_model import inception_table, recipe
from marco_model.errors import InputError

if TYPE_CHECKING:
    import keras

AUXILIARY = "AuxLogits-"
"""What the names of the auxiliary head's layers begin with."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as published.

    `input_size` and `smallest_input` are in pixels. `blocks` maps the name of each block, from the input on, to the
    layer whose output it starts from; `features` is the layer whose output, averaged, the head classifies. `logits`
    names the layers with one column per class. `application` is its name in `keras.applications`, empty for ours.
    """

    input_size: int
    smallest_input: int
    blocks: Mapping[str, str]
    features: str
    logits: tuple[str, ...] = ("predictions",)
    application: str = ""


def _inception_v3() -> Architecture:
    names = list(inception_table.BLOCKS)
    return Architecture(
        input_size=599,
        smallest_input=151,
        blocks=dict(zip(names, ["MaxPool_5a_3x3", *names], strict=False)),
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
    return Architecture(
        input_size=299,
        smallest_input=75,
        blocks=dict(zip(names, outputs, strict=False)),
        features="conv_7b_ac",
        application="InceptionResNetV2",
    )


def _nasnet(application: str, input_size: int, repeats: int) -> Architecture:
    names = ["reduction_stem_1", "reduction_stem_2"]
    for first, last in ((0, repeats), (repeats + 1, 2 * repeats), (2 * repeats + 1, 3 * repeats)):
        # A group of normal cells, with a reduction after each group but the last.
        names += [*(f"normal_{number}" for number in range(first, first + repeats)), f"reduction_reduce_{last}"]
    names.pop()
    outputs = ["stem_bn1", *(name.replace("_", "_concat_", 1) for name in names)]
    return Architecture(
        input_size=input_size,
        smallest_input=32,
        blocks=dict(zip(names, outputs, strict=False)),
        features=outputs[-1],
        application=application,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "inception_v3": _inception_v3(),
    "inception_resnet_v2": _inception_resnet_v2(),
    "nasnet_mobile": _nasnet("NASNetMobile", 224, 4),
    "nasnet_large": _nasnet("NASNetLarge", 331, 6),
}

RANGES: dict[str, recipe.Range] = {
    "depth_multiplier": recipe.Range(gt=0),
    "batch_norm_momentum": recipe.Range(ge=0, lt=1),
}
"""What each number of a network may be, whatever the architecture."""

RANDOM = "random"
RELEASED = "released"


@dataclasses.dataclass(frozen=True)
class Network:
    """Which network is trained, from which weights, and which part of it.

    A field that is left out takes the architecture's own value: `Network().input_size` is 599. Raises `InputError` for
    a value that the architecture does not have.
    """

    # The paper's network, or one that it tried without gain.
    architecture: Literal["inception_v3", "inception_resnet_v2", "nasnet_mobile", "nasnet_large"] = "inception_v3"
    # Of inception_v3: `paper` is Table III to the letter; `released`, which the published weights fit.
    variant: Literal["paper", "released"] | None = None
    # Pixels; 0 is the architecture's own.
    input_size: int = 0
    # Of inception_v3.
    depth_multiplier: float = 1.0
    # TF-Slim trains Inception-v3 with its auxiliary head; the published weights have one. It is of no use where only
    # layers above it are trained.
    auxiliary: bool | None = None
    # TF-Slim's inception_arg_scope. A run of a few hundred steps needs a shorter memory, such as 0.9.
    batch_norm_momentum: float = 0.9997
    # The first weights: `random`; `released`, the published classifier's; or those of an earlier model: its folder, or
    # one of numbered versions, local or gs://.
    initial: str = RANDOM
    # The part to train: `all`, `head`, or everything from a block on, such as `Mixed_7a`.
    trainable: str = "all"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Fills in the architecture's own values and checks what types cannot express."""
        own = self._own()
        recipe.check_ranges("network", self, RANGES)
        if self.trainable not in ("all", "head", *own.blocks):
            raise InputError(
                f"network.trainable is {self.trainable!r}; give all, head, or the first block of {self.architecture} "
                f"to train: {', '.join(own.blocks)}"
            )
        for name, default in (("variant", None), ("depth_multiplier", 1.0), ("auxiliary", None)):
            value = getattr(self, name)
            if self.architecture != "inception_v3" and value != default and value is not False:
                raise InputError(
                    f"network.{name} is {value!r}, which only inception_v3 has; remove it for {self.architecture}"
                )
        self._set("input_size", self.input_size or own.input_size)
        if self.input_size < own.smallest_input:
            raise InputError(
                f"network.input_size is {self.input_size}; {self.architecture} takes at least {own.smallest_input}"
            )
        if self.architecture == "inception_v3":
            self._set("variant", self.variant or (RELEASED if self.initial == RELEASED else "paper"))
        if self.auxiliary is None:
            self._set("auxiliary", self._auxiliary_head_helps())
        if self.initial == RELEASED and (self.variant != RELEASED or self.depth_multiplier != 1.0):
            raise InputError(
                f"network.initial is released, with {self.architecture}, variant {self.variant} and depth_multiplier "
                f"{self.depth_multiplier}; the published weights fit only inception_v3, variant released, at 1.0"
            )

    def facts(self) -> dict[str, Any]:
        """Returns the fields that decide the shapes of the weights below the heads; an exported model records them."""
        return {name: getattr(self, name) for name in ("architecture", "variant", "depth_multiplier")}

    def _own(self) -> Architecture:
        if self.architecture not in ARCHITECTURES:
            raise InputError(f"network.architecture is {self.architecture!r}; give one of {', '.join(ARCHITECTURES)}")
        return ARCHITECTURES[self.architecture]

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _auxiliary_head_helps(self) -> bool:
        """Whether something below the auxiliary head, which stands on `Mixed_6e`, is trained."""
        if self.architecture != "inception_v3" or self.trainable == "head":
            return False
        blocks = list(self._own().blocks)
        return self.trainable == "all" or blocks.index(self.trainable) <= blocks.index("Mixed_6e")


def build(network: Network, *, num_classes: int, seed: int, dtype_policy: str = "float32") -> "keras.Model":
    """Returns the network to train, with random weights that depend on `seed` alone.

    Input: float32 [batch, input_size, input_size, 3] in [-1, 1]. Output: logits, float32 [batch, num_classes], or a
    dict of `logits` and `auxiliary_logits`. `dtype_policy` is Keras's, such as `mixed_bfloat16`: layers then compute in
    bfloat16, variables and logits stay float32. The layers that `network.trainable` leaves out are frozen: their
    variables are not among `trainable_variables`, their batch norms use their moving statistics and don't move them.
    `weights.initialise` replaces the random weights.
    """
    import keras

    from marco_model.inception_v3 import inception_v3

    keras.utils.set_random_seed(seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy)
    try:
        if network.architecture == "inception_v3":
            model = inception_v3(
                variant=str(network.variant),
                input_size=network.input_size,
                num_classes=num_classes,
                depth_multiplier=network.depth_multiplier,
                auxiliary=bool(network.auxiliary),
                batch_norm_momentum=network.batch_norm_momentum,
            )
        else:
            model = _application(network, num_classes)
    finally:
        keras.config.set_dtype_policy(policy)
    if network.trainable != "all":
        # The heads are always trained, and everything else from this layer's output on.
        architecture = ARCHITECTURES[network.architecture]
        last = architecture.features if network.trainable == "head" else architecture.blocks[network.trainable]
        for layer in keras.Model(model.inputs, model.get_layer(last).output).layers:
            layer.trainable = False
    return model


def _application(network: Network, num_classes: int) -> "keras.Model":
    """Returns a network of `keras.applications` with a head of ours.

    Input `images`: float32 [batch, input_size, input_size, 3] in [-1, 1], the range of `preprocess_input` of all of
    them. Output: logits, float32 [batch, num_classes].
    """
    import keras

    name = network.architecture
    images = keras.Input((network.input_size, network.input_size, 3), name="images")
    # Without its top, which would compute the logits in the policy's dtype.
    builder = getattr(keras.applications, ARCHITECTURES[name].application)
    trunk = builder(include_top=False, weights=None, input_tensor=images, pooling="avg", name=name)
    names = _numbered_from_zero(trunk)

    def clone(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        config = {**layer.get_config(), "name": names.get(layer.name, layer.name)}
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = network.batch_norm_momentum
        return type(layer).from_config(config)

    trunk = keras.models.clone_model(trunk, clone_function=clone)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="predictions")(trunk.output)
    return keras.Model(trunk.input, logits, name=name)


def _numbered_from_zero(model: "keras.Model") -> dict[str, str]:
    """Maps each name that Keras made up, such as `conv2d_17`, to the one that it makes up in a new process.

    Keras numbers layers without a name of their own through the process; checkpoints and exported weights go by names.
    """
    numbered = []
    for layer in model.layers:
        prefix = re.sub(r"_\d+$", "", layer.name)
        if prefix.replace("_", "") == type(layer).__name__.lower():
            numbered.append((int(layer.name[len(prefix) + 1 :] or 0), prefix, layer.name))
    counts: dict[str, int] = {}
    names = {}
    for _, prefix, name in sorted(numbered):
        count = counts.get(prefix, 0)
        names[name] = f"{prefix}_{count}" if count else prefix
        counts[prefix] = count + 1
    return names
