"""The training step of the `paper` network on JAX, for `benchmarks.gpu` where JAX has a GPU and TensorFlow has none.

For `benchmarks.gpu` it has the same names as `benchmarks.train_step`. Import it after KERAS_BACKEND is set to jax. JAX
is not a dependency of the project.
"""

from collections.abc import Callable

import jax
import keras
import numpy as np
import tensorflow as tf

from benchmarks import train_step
from marco_model.recipe import Recipe

Arrays = list[jax.Array]
State = tuple[Arrays, Arrays, Arrays]

COMPILERS = ("on",)
OUT_OF_MEMORY = RuntimeError


def device() -> str:
    """Returns the name of the first device."""
    return str(jax.devices()[0].device_kind)


def put(array: np.ndarray | tf.Tensor) -> jax.Array:
    """Returns an array of the host in the accelerator's memory."""
    return jax.device_put(np.asarray(array))


def paper_step(
    *, precision: str = "float32", xla: bool = True, input_size: int = 599, depth_multiplier: float = 1.0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the training step of the `paper` network on (uint8 windows, classes), compiled; it returns the loss.

    As `benchmarks.train_step.paper_step`, with loss, L2, RMSProp, moving statistics and the running average of what is
    trained, but for the distortions: windows are only mapped to [-1, 1]. JAX compiles whatever `xla` is.
    """
    recipe = Recipe()
    model = train_step.untrained(input_size, depth_multiplier, precision)
    kernels = [index for index, v in enumerate(model.trainable_variables) if v.path.endswith("kernel")]
    optimizer = keras.optimizers.RMSprop(
        recipe.learning_rate,
        rho=recipe.rho,
        momentum=recipe.momentum,
        epsilon=recipe.epsilon,
        use_ema=True,
        ema_momentum=recipe.average_decay,
    )
    optimizer.build(model.trainable_variables)

    def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
        classes, smoothing = logits.shape[-1], recipe.label_smoothing
        smoothed = jax.nn.one_hot(targets, classes) * (1 - smoothing) + smoothing / classes
        return -jax.numpy.mean(jax.numpy.sum(smoothed * jax.nn.log_softmax(logits.astype(jax.numpy.float32)), axis=-1))

    def loss_of(trained: Arrays, moving: Arrays, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, Arrays]:
        outputs, moved = model.stateless_call(trained, moving, images, training=True)
        loss = cross_entropy(outputs["logits"], targets)
        loss += recipe.auxiliary_weight * cross_entropy(outputs["auxiliary_logits"], targets)
        return loss + recipe.weight_decay * sum(jax.numpy.sum(trained[index] ** 2) for index in kernels) / 2, moved

    def step(state: State, images: jax.Array, targets: jax.Array) -> tuple[State, jax.Array]:
        trained, moving, slots = state
        inputs = images.astype(jax.numpy.float32) / 127.5 - 1.0
        (loss, moved), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, moving, inputs, targets)
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        return (trained, moved, slots), loss

    compiled = jax.jit(step, donate_argnums=0)
    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = tuple([jax.numpy.array(variable.value) for variable in kind] for kind in variables)

    def take(images: jax.Array, targets: jax.Array) -> jax.Array:
        nonlocal state
        state, loss = compiled(state, images, targets)
        return loss

    return take
