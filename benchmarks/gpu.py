"""Training on an accelerator: images a second of the step alone, and end to end from real JPEGs.

Times the whole step of the paper's network at 599 pixels for every batch, precision and XLA setting given, on windows
that are in the accelerator's memory, and then the fastest of them end to end: records read, windows decoded by the
host, step. The peer is what the paper's cluster of 50 K80 did in all, 1,463 images/s. Where TensorFlow sees no GPU but
JAX does, the same Keras model and a step without distortions run on JAX.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import input, report, train_step
from benchmarks.train_step import CLASSES


def jax_paper_step(
    *, precision: str = "float32", input_size: int = 599, depth_multiplier: float = 1.0
) -> Callable[[Any, Any], Any]:
    """Returns the training step of the `paper` network on (uint8 windows, labels), compiled; it returns the loss.

    As `benchmarks.train_step.paper_step`, with loss, L2, TensorFlow 1's RMSProp, moving statistics and running average
    in jnp, but for the distortions: windows are only mapped to [-1, 1].
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


PAPER = 1463.0
"""Images a second: 1.7 M steps of 64 in 19 hours, rounded up as the paper's 260 epochs are."""


def choose_backend(asked: str) -> str:
    """Returns `tensorflow` or `jax`: of `auto` JAX only where it alone has a GPU.

    Exits with a message where JAX is asked for and not installed.
    """
    has_jax = importlib.util.find_spec("jax") is not None
    if asked == "jax" and not has_jax:
        sys.exit("JAX is not installed here; install jax[cuda12] beside the project, or leave --backend out")
    if asked != "auto":
        return asked
    import tensorflow as tf

    if not has_jax or tf.config.list_physical_devices("GPU"):
        return "tensorflow"
    import jax

    return "jax" if jax.default_backend() == "gpu" else "tensorflow"


class TensorFlow:
    """Steps on TensorFlow."""

    def __init__(self) -> None:
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        self.device = tf.config.experimental.get_device_details(devices[0])["device_name"] if devices else "CPU"
        self.out_of_memory: type[Exception] = tf.errors.ResourceExhaustedError
        self.compilers = ("off", "on")

    def step(self, precision: str, xla: str, network: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """Returns our training step."""
        return train_step.paper_step(precision=precision, xla=xla == "on", **network)

    def put(self, array: Any) -> Any:
        """Returns a batch in the accelerator's memory."""
        import tensorflow as tf

        return tf.identity(tf.constant(array))

    def feed(self, batches: Any) -> Any:
        """Returns batches on their way from the host."""
        return batches


class Jax:
    """Steps on JAX, which always compiles."""

    def __init__(self) -> None:
        import jax

        self.device = jax.devices()[0].device_kind
        self.out_of_memory: type[Exception] = RuntimeError
        self.compilers = ("on",)

    def step(self, precision: str, xla: str, network: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """Returns the training step, without distortions."""

        return jax_paper_step(precision=precision, **network)

    def put(self, array: Any) -> Any:
        """Returns a batch in the accelerator's memory."""
        import jax

        return jax.device_put(array)

    def feed(self, batches: Any) -> Any:
        """Returns batches on their way from the host."""
        return (tuple(self.put(part.numpy()) for part in batch) for batch in batches)


def step_rate(step: Callable[[Any, Any], Any], batch: tuple[Any, Any], count: int) -> float:
    """Returns images a second of `count` steps, warmed up; reading the last loss waits for all of them."""
    for _ in range(3):
        float(step(*batch))
    begun = time.perf_counter()
    for _ in range(count):
        loss = step(*batch)
    float(loss)
    return count * len(batch[1]) / (time.perf_counter() - begun)


def fed_rate(step: Callable[[Any, Any], Any], batches: Any, warm: int) -> float:
    """Returns images a second of steps on `batches` as they come, after the first `warm` of them."""
    images = 0
    begun = time.perf_counter()
    for number, (windows, labels) in enumerate(batches, start=1):
        loss = step(windows, labels)
        images += len(labels)
        if number == warm:
            float(loss)
            images, begun = 0, time.perf_counter()
    float(loss)
    return images / (time.perf_counter() - begun)


def _records(chosen: argparse.Namespace, batch: int, folder: Path) -> Any:
    """Returns the training input's batches from records of real images, enough for all steps."""
    from marco_model import training_input

    count = batch * (chosen.steps + 3)
    return training_input.epoch_batches(
        input.training_examples(chosen.images, count, folder),
        epoch=0,
        skip=0,
        batches=chosen.steps + 3,
        size=chosen.size,
        batch_size=batch,
        shuffle=1024,
        seed=0,
    )


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints a table, and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--backend", choices=["auto", "tensorflow", "jax"], default="auto")
    options.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512], help="images a step")
    options.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options.add_argument("--xla", nargs="+", choices=["off", "on"], default=["off", "on"], help="on TensorFlow")
    options.add_argument("--steps", type=int, default=20, help="steps timed of each kind")
    options.add_argument("--size", type=int, default=599, help="pixels of the input")
    options.add_argument("--depth-multiplier", type=float, default=1.0, help="a narrow network, to try this on a CPU")
    options.add_argument("--images", type=Path, default=input.IMAGES, help="folder of JPEGs to make records of")
    chosen = options.parse_args(arguments)
    backend = choose_backend(chosen.backend)
    os.environ.setdefault("KERAS_BACKEND", backend)
    machine = Jax() if backend == "jax" else TensorFlow()

    print(f"{backend} on {machine.device}, {len(os.sched_getaffinity(0))} CPU cores", flush=True)
    print("precision  XLA  batch  images/s", flush=True)
    rates: dict[tuple[str, str, int], float] = {}
    made = {}
    network = {"input_size": chosen.size, "depth_multiplier": chosen.depth_multiplier}
    for precision, xla in itertools.product(chosen.precisions, machine.compilers):
        if backend == "tensorflow" and xla not in chosen.xla:
            continue
        step = made[precision, xla] = machine.step(precision, xla, network)
        for batch in chosen.batches:
            windows, labels = (machine.put(part) for part in train_step.batch_of(chosen.size, batch))
            try:
                rates[precision, xla, batch] = step_rate(step, (windows, labels), chosen.steps)
            except machine.out_of_memory as error:
                print(f"{precision:9s}  {xla:3s}  {batch:5d}  {type(error).__name__}: {str(error)[:80]!r}", flush=True)
                break
            print(f"{precision:9s}  {xla:3s}  {batch:5d}  {rates[precision, xla, batch]:8.1f}", flush=True)
    if not rates:
        sys.exit("no batch fits this accelerator; give smaller ones with --batches")
    precision, xla, batch = max(rates, key=lambda setting: rates[setting])
    with tempfile.TemporaryDirectory() as scratch:
        fed = fed_rate(made[precision, xla], machine.feed(_records(chosen, batch, Path(scratch))), warm=3)
    print(f"{precision:9s}  {xla:3s}  {batch:5d}  {fed:8.1f} end to end, from JPEGs", flush=True)
    report(fed, PAPER, "images/s end to end")


if __name__ == "__main__":
    main()
