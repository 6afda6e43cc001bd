"""One training step of the paper's network at 599 pixels against Keras's Inception-v3 at 299, seconds.

Ours is the whole step as training takes it, from uint8 windows: distortions, forward and backward pass with the
auxiliary head, smoothed loss and L2, RMSProp, moving statistics and the running average. The peer has float images
ready and does forward and backward pass, plain cross-entropy and the same optimizer. Same batch, same cores, in turns.

Each side has a process of its own, since TensorFlow chooses its kernels when it is imported: ours those that training
sets (`recipe.TENSORFLOW_DEFAULTS`), the peer those that TensorFlow takes by itself. With `--peer keras-onednn` the peer
has our kernels too. With `--peer undistorted` it is our own step on the same windows, which it only maps to [-1, 1].
`benchmarks.gpu` takes our step from here too, on TensorFlow or on JAX, and what its time goes to.

    python -m benchmarks.train_step
"""

import collections
import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import benchmarks
from benchmarks import input
from marco_model import engines, labels, network, recipe, training_step

CLASSES = len(labels.CLASSES)
Step = Callable[[Any, Any], Any]
"""Takes windows and classes, tensors of TensorFlow or JAX, and returns the loss."""
PROFILE_ROWS = 25


def untrained(input_size: int, depth_multiplier: float, precision: str) -> keras.Model:
    """Returns the `paper` network for steps in `float32` or `bfloat16`."""
    policy = recipe.Engine(precision=precision).dtype_policy  # type: ignore[arg-type]
    shape = network.Network(input_size=input_size, depth_multiplier=depth_multiplier)
    return network.build(shape, num_classes=CLASSES, seed=0, dtype_policy=policy)


def multiply_adds(input_size: int, depth_multiplier: float) -> int:
    """Returns those of all convolutions of the `paper` network, auxiliary head included, for an image forward."""
    layers = untrained(input_size, depth_multiplier, "float32").layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    return sum(math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3]) for layer in convolutions)


def paper_step(
    *,
    augment: bool = True,
    precision: str = "float32",
    xla: bool = False,
    input_size: int = 599,
    depth_multiplier: float = 1.0,
) -> Step:
    """Returns our whole training step of the `paper` network on (uint8 windows, classes), as one device runs it.

    Distortions, forward and backward pass with the auxiliary head, label smoothing and L2, RMSProp, moving statistics
    and the running average of all weights. It returns the loss.
    """
    settings = recipe.Recipe(augment=augment)
    state = training_step.TrainingState(untrained(input_size, depth_multiplier, precision), settings, xla=xla)
    strategy = tf.distribute.get_strategy()
    rate, decay = tf.constant(settings.learning_rate), tf.constant(settings.average_decay)
    number = tf.Variable(0, dtype=tf.int64, trainable=False)

    @tf.function
    def step(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(0, tf.int64), number.assign_add(1)])
        return strategy.run(state.step, args=(images, targets, seed, rate, decay))[0]

    return step


def stock_step(input_size: int = 299) -> Step:
    """Returns a plain training step of `keras.applications.InceptionV3` on (float32 images, classes).

    Forward and backward pass, cross-entropy, our RMSProp and the moving statistics; no auxiliary head, no L2, no
    distortions, no running average. It returns the loss.
    """
    model = keras.applications.InceptionV3(
        weights=None, input_shape=(input_size, input_size, 3), classes=CLASSES, classifier_activation=None
    )
    settings = recipe.Recipe()
    trained = [tf.Variable(variable.value) for variable in model.trainable_variables]
    statistics = [tf.Variable(variable.value, trainable=False) for variable in model.non_trainable_variables]
    optimizer = training_step.RMSProp(trained, rho=settings.rho, momentum=settings.momentum, epsilon=settings.epsilon)
    rate = tf.constant(settings.learning_rate)

    @tf.function
    def step(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        values = [tf.convert_to_tensor(variable) for variable in trained]
        with tf.GradientTape() as tape:
            tape.watch(values)
            current = [tf.convert_to_tensor(variable) for variable in statistics]
            logits, moved = model.stateless_call(values, current, images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
        every = training_step.on_all_devices(tf.distribute.get_strategy())
        optimizer.apply(every, tape.gradient(loss, values), rate)
        for variable, value in zip(statistics, moved, strict=True):
            variable.assign(value)
        return loss

    return step


class TensorFlow:
    """What `benchmarks.gpu` needs of a library that trains: the settings of XLA, and our step on the first GPU."""

    compilers = ("off", "on")
    out_of_memory = tf.errors.ResourceExhaustedError
    put = staticmethod(tf.identity)
    step = staticmethod(paper_step)
    ahead = staticmethod(engines.ahead_on_gpu)

    def device(self) -> str:
        """Returns the name of the first GPU, or CPU."""
        devices = tf.config.list_physical_devices("GPU")
        return str(tf.config.experimental.get_device_details(devices[0])["device_name"]) if devices else "CPU"


class Jax:
    """As `TensorFlow`, where JAX has a GPU and TensorFlow has none; make it after KERAS_BACKEND is set to jax.

    JAX is not a dependency of the project, so it is imported here alone.
    """

    compilers = ("on",)
    out_of_memory = RuntimeError

    def __init__(self) -> None:
        import jax

        self._jax = jax

    def device(self) -> str:
        """Returns the name of the first device."""
        return str(self._jax.devices()[0].device_kind)

    def put(self, array: np.ndarray | tf.Tensor) -> Any:
        """Returns an array of the host in the accelerator's memory."""
        return self._jax.device_put(np.asarray(array))

    def ahead(self, batches: tf.data.Dataset) -> Iterator[tuple[Any, ...]]:
        """Yields the batches from the accelerator's memory."""
        for batch in batches:
            yield tuple(map(self.put, batch))

    def step(
        self, *, precision: str = "float32", xla: bool = True, input_size: int = 599, depth_multiplier: float = 1.0
    ) -> Step:
        """Returns the training step of the `paper` network on (uint8 windows, classes), compiled; it returns the loss.

        As `paper_step`, with loss, L2, RMSProp, moving statistics and the running average of what is trained, but for
        the distortions: windows are only mapped to [-1, 1]. JAX compiles whatever `xla` is.
        """
        jax, jnp, settings = self._jax, self._jax.numpy, recipe.Recipe()
        model = untrained(input_size, depth_multiplier, precision)
        kernels = [index for index, v in enumerate(model.trainable_variables) if v.path.endswith("kernel")]
        optimizer = keras.optimizers.RMSprop(
            settings.learning_rate,
            rho=settings.rho,
            momentum=settings.momentum,
            epsilon=settings.epsilon,
            use_ema=True,
            ema_momentum=settings.average_decay,
        )
        optimizer.build(model.trainable_variables)

        def cross_entropy(logits: Any, targets: Any) -> Any:
            classes, smoothing = logits.shape[-1], settings.label_smoothing
            smoothed = jax.nn.one_hot(targets, classes) * (1 - smoothing) + smoothing / classes
            return -jnp.mean(jnp.sum(smoothed * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1))

        def loss_of(trained: list[Any], moving: list[Any], images: Any, targets: Any) -> tuple[Any, list[Any]]:
            outputs, moved = model.stateless_call(trained, moving, images, training=True)
            loss = cross_entropy(outputs["logits"], targets)
            loss += settings.auxiliary_weight * cross_entropy(outputs["auxiliary_logits"], targets)
            return loss + settings.weight_decay * sum(jnp.sum(trained[index] ** 2) for index in kernels) / 2, moved

        def step(state: tuple[Any, ...], images: Any, targets: Any) -> tuple[tuple[Any, ...], Any]:
            trained, moving, slots = state
            inputs = images.astype(jnp.float32) / 127.5 - 1.0
            (loss, moved), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, moving, inputs, targets)
            trained, slots = optimizer.stateless_apply(slots, gradients, trained)
            return (trained, moved, slots), loss

        compiled = jax.jit(step, donate_argnums=0)
        variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        state = tuple([jnp.array(variable.value) for variable in kind] for kind in variables)

        def take(images: Any, targets: Any) -> Any:
            nonlocal state
            state, loss = compiled(state, images, targets)
            return loss

        return take


def profile(step: Callable[[], Any], steps: int) -> str:
    """Returns the milliseconds of a step by kind of kernel, as a table, and the share in which the device was busy.

    `step` returns a scalar tensor, which is waited for; a first call, which may compile, is not counted. The times are
    from TensorFlow's profiler: of kernels on a GPU, of operations on a CPU.
    """
    float(step())
    with benchmarks.scratch() as folder:
        tf.profiler.experimental.start(str(folder))
        begun = time.perf_counter()
        for _ in range(steps):
            loss = step()
        float(loss)
        passed = time.perf_counter() - begun
        tf.profiler.experimental.stop()
        device, seconds = read_profile(next(folder.rglob("*.xplane.pb")))
    milliseconds = {name: 1000 * duration / steps for name, duration in seconds.items()}
    busy = sum(milliseconds.values())
    lines = [f"{1000 * passed / steps:.2f} ms a step; in kernels on {device} {busy:.2f}, of which"]
    longest = sorted(milliseconds, key=lambda name: -milliseconds[name])[:PROFILE_ROWS]
    lines += [f"{milliseconds[name]:9.2f} ms {milliseconds[name] / busy:6.1%}  {name}" for name in longest]
    rest = busy - sum(milliseconds[name] for name in longest)
    return "\n".join([*lines, f"{rest:9.2f} ms {rest / busy:6.1%}  all others"])


def read_profile(file: Path) -> tuple[str, dict[str, float]]:
    """Returns the name of the profiled device, and seconds by kind of kernel from a profile's file.

    Of the host these are operations; those that contain others, such as a compiled program's call, are left out.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    gpus = [plane for plane in space.planes if plane.name.startswith("/device:GPU")]
    seconds: collections.Counter[str] = collections.Counter()
    for plane in gpus or [plane for plane in space.planes if plane.name == "/host:CPU"]:
        for line in plane.lines:
            if gpus and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                if kind := kind_of(plane.event_metadata[event.metadata_id].name, on_gpu=bool(gpus)):
                    seconds[kind] += event.duration_ps / 1e12
    return "a GPU" if gpus else "the CPU", dict(seconds)


def kind_of(name: str, *, on_gpu: bool) -> str:
    """Returns the kind of a kernel from its name: without numbers on a GPU; on a CPU its type, or nothing if none."""
    if on_gpu:
        return re.sub(r"[._]\d+\b|<.*", "", name)[:100]
    operation = re.fullmatch(r"[^:]+:([A-Z_]\w*)", name)
    return operation[1] if operation else ""


STEPS: dict[str, Callable[..., Step]] = {
    "ours": paper_step,
    "undistorted": functools.partial(paper_step, augment=False),
    "keras": stock_step,
}


@functools.cache
def _call(name: str, size: int, batch: int) -> Callable[[], Any]:
    """Returns a call of the step of `STEPS` on a batch of noise: uint8, for Keras float32 in [-1, 1]."""
    windows, targets = (tf.constant(part) for part in input.noise(size, batch))
    images = tf.cast(windows, tf.float32) / 127.5 - 1.0 if name == "keras" else windows
    step = STEPS[name](input_size=size)
    return lambda: step(images, targets)


def take(name: str, size: int, batch: int, count: int) -> float:
    """Takes steps of `STEPS` and returns the last one's loss; the first call in a process makes the step."""
    losses = [_call(name, size, batch)() for _ in range(count)]
    return float(losses[-1])


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    parser = benchmarks.parser(__doc__, rounds=7)
    peers = ["keras", "keras-onednn", "undistorted"]
    parser.add_argument("--peer", choices=peers, default="keras", help="(default keras)")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step, on both sides (default 16)")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn (default 3)")
    sizes_help = "pixels of our input and of Keras's (default 599 299)"
    parser.add_argument("--sizes", type=int, nargs=2, default=(599, 299), help=sizes_help)
    options = parser.parse_args(arguments)
    our_size, keras_size = options.sizes
    step, size = ("undistorted", our_size) if options.peer == "undistorted" else ("keras", keras_size)
    ours_set = recipe.TENSORFLOW_DEFAULTS
    peer_set = {} if options.peer == "keras" else ours_set
    with benchmarks.own_process(ours_set) as ours, benchmarks.own_process(peer_set) as peer:
        figures = benchmarks.medians(
            lambda: ours(take, "ours", our_size, options.batch_size, options.steps),
            lambda: peer(take, step, size, options.batch_size, options.steps),
            options.rounds,
            warm_up=1,
        )
    own, other = (seconds / options.steps for seconds in figures)
    benchmarks.report(own, other, f"seconds for a step of {options.batch_size} images")


if __name__ == "__main__":
    main()
