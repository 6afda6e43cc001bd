"""The architectures of `keras.applications` as networks of this project: one input, raw logits, stable names."""

from __future__ import annotations

import re
from collections import Counter

import keras
from keras import layers

_BUILDERS = {
    "inception_resnet_v2": keras.applications.InceptionResNetV2,
    "nasnet_mobile": keras.applications.NASNetMobile,
    "nasnet_large": keras.applications.NASNetLarge,
}


def application(name: str, *, input_size: int, num_classes: int, batch_norm_momentum: float) -> keras.Model:
    """Returns `inception_resnet_v2`, `nasnet_mobile` or `nasnet_large`, untrained.

    Input `images`: float32 [batch, input_size, input_size, 3] in [-1, 1], the range of `preprocess_input` of all three.
    Output: logits, float32 [batch, num_classes].
    """
    images = keras.Input((input_size, input_size, 3), name="images")
    # Without its top, which would compute the logits in the policy's dtype.
    trunk = _BUILDERS[name](include_top=False, weights=None, input_tensor=images, pooling="avg", name=name)
    trunk = _renamed(trunk, batch_norm_momentum)
    logits = layers.Dense(num_classes, dtype="float32", name="predictions")(trunk.output)
    return keras.Model(trunk.input, logits, name=name)


def _renamed(model: keras.Model, batch_norm_momentum: float) -> keras.Model:
    """Returns a copy whose layers are named as if it were the first model of the process.

    Keras numbers the layers that have no name of their own through the process; checkpoints and exported weights go by
    names.
    """
    names = _numbered_from_zero(model)

    def clone(layer: layers.Layer) -> layers.Layer:
        config = {**layer.get_config(), "name": names.get(layer.name, layer.name)}
        if isinstance(layer, layers.BatchNormalization):
            config["momentum"] = batch_norm_momentum
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


def _numbered_from_zero(model: keras.Model) -> dict[str, str]:
    """Maps each name that Keras gave, such as `conv2d_17`, to the one that it gives in a new process."""
    found = []
    for layer in model.layers:
        prefix = re.sub(r"_\d+$", "", layer.name)
        if prefix.replace("_", "") == type(layer).__name__.lower():
            found.append((int(layer.name[len(prefix) + 1 :] or 0), prefix, layer.name))
    before: Counter[str] = Counter()
    names = {}
    for _, prefix, name in sorted(found):
        names[name] = f"{prefix}_{before[prefix]}" if before[prefix] else prefix
        before[prefix] += 1
    return names
