"""The training step of the paper's network on JAX, for machines where TensorFlow has no GPU: the same Keras model.

Keras takes its backend from the environment when it is first imported, so that this needs a process of its own, with
KERAS_BACKEND=jax. JAX is no dependency of the project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.steps import CLASSES


def paper_step(
    *, precision: str = "float32", input_size: int = 599, depth_multiplier: float = 1.0
) -> Callable[[Any, Any], Any]:
    """Returns the training step of the `paper` network on (uint8 windows, labels), compiled; it returns the loss.

    As `benchmarks.steps.paper_step`, loss, L2, TensorFlow 1's RMSProp, moving statistics and running average in jnp,
    but for the distortions: windows are only mapped to [-1, 1].
    """
    import jax
    import jax.numpy as jnp

    from marco_model.network import Network, build
    from marco_model.recipe import Recipe

    recipe = Recipe()
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    model = build(
        Network(input_size=input_size, depth_multiplier=depth_multiplier),
        num_classes=CLASSES,
        seed=0,
        dtype_policy=policy,
    )
    kernels = [index for index, v in enumerate(model.trainable_variables) if v.path.endswith("kernel")]

    def cross_entropy(logits: Any, labels: Any) -> Any:
        target = jax.nn.one_hot(labels, CLASSES) * (1 - recipe.label_smoothing) + recipe.label_smoothing / CLASSES
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1))

    def loss_of(trained: list[Any], moving: list[Any], images: Any, labels: Any) -> tuple[Any, list[Any]]:
        outputs, moved = model.stateless_call(trained, moving, images, training=True)
        loss = cross_entropy(outputs["logits"], labels)
        loss += recipe.auxiliary_weight * cross_entropy(outputs["auxiliary_logits"], labels)
        squares = sum(jnp.sum(trained[index] ** 2) for index in kernels)
        return loss + recipe.weight_decay * squares / 2, moved

    def update(value: Any, mean_square: Any, momentum: Any, gradient: Any) -> tuple[Any, Any, Any]:
        mean_square = recipe.rho * mean_square + (1 - recipe.rho) * gradient**2
        change = recipe.learning_rate * gradient / jnp.sqrt(mean_square + recipe.epsilon)
        momentum = recipe.momentum * momentum + change
        return value - momentum, mean_square, momentum

    def step(state: dict[str, list[Any]], images: Any, labels: Any) -> tuple[dict[str, list[Any]], Any]:
        inputs = images.astype(jnp.float32) / 127.5 - 1.0
        (loss, moved), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state["trained"], state["moving"], inputs, labels
        )
        slots = zip(state["trained"], state["mean_square"], state["momentum"], gradients, strict=True)
        trained, mean_square, momentum = (list(part) for part in zip(*(update(*slot) for slot in slots), strict=True))
        averages = [
            average - (1 - recipe.average_decay) * (average - value)
            for average, value in zip(state["averages"], trained + moved, strict=True)
        ]
        new = {"trained": trained, "mean_square": mean_square, "momentum": momentum}
        return {**new, "moving": moved, "averages": averages}, loss

    def copies(variables: list[Any]) -> list[Any]:
        return [jnp.array(variable.value) for variable in variables]

    trained = copies(model.trainable_variables)
    state = {
        "trained": trained,
        "mean_square": [jnp.ones_like(value) for value in trained],
        "momentum": [jnp.zeros_like(value) for value in trained],
        "moving": copies(model.non_trainable_variables),
        "averages": copies(model.trainable_variables + model.non_trainable_variables),
    }
    compiled = jax.jit(step, donate_argnums=0)

    def take(images: Any, labels: Any) -> Any:
        nonlocal state
        state, loss = compiled(state, images, labels)
        return loss

    return take
