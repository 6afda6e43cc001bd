"""Training on an accelerator: images a second of the step alone, and end to end from real JPEGs.

Times the whole step of the paper's network at 599 pixels for every batch, precision and XLA setting given, on windows
that are in the accelerator's memory, and then the fastest of them end to end: records read, windows decoded by the
host, step. The peer is what the paper's cluster of 50 K80 did in all, 1,463 images/s. Where TensorFlow sees no GPU but
JAX does, the same Keras model and a step without distortions run on JAX.

    python -m benchmarks.gpu
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import benchmarks

PAPER = 1463.0
"""Images a second: 1.7 M steps of 64 in 19 hours, rounded up as the paper's 260 epochs are."""
WARM_UP = 3
"""Steps that come first and are not timed."""


def choose_backend(asked: str) -> str:
    """Returns `tensorflow` or `jax`: of `auto` JAX only where it alone has a GPU.

    Exits with a message where JAX is asked for and not installed.
    """
    has_jax = importlib.util.find_spec("jax") is not None
    if asked == "jax" and not has_jax:
        sys.exit("JAX is not installed here; install jax[cuda12] beside the project, or leave --backend out")
    if asked != "auto":
        return asked
    if not has_jax or _count("import tensorflow; print(len(tensorflow.config.list_physical_devices('GPU')))"):
        return "tensorflow"
    gpus = _count("import jax; print(sum(device.platform == 'gpu' for device in jax.devices()))")
    return "jax" if gpus else "tensorflow"


def _count(program: str) -> int:
    """Returns the number that a program prints in its own process: TensorFlow imports Keras, which sets its backend."""
    return int(subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout)


def rate(step: Callable[[Any, Any], Any], batches: Iterable[tuple[Any, Any]]) -> float:
    """Returns images a second of steps on batches after the first `WARM_UP`; reading a loss waits for all steps."""
    images, begun = 0, 0.0
    for number, (windows, targets) in enumerate(batches, start=1):
        loss = step(windows, targets)
        images += len(targets)
        if number == WARM_UP:
            float(loss)
            images, begun = 0, time.perf_counter()
    float(loss)
    return images / (time.perf_counter() - begun)


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints a table, and reports."""
    parser = benchmarks.parser(__doc__, images="folder of JPEGs to make records of")
    parser.add_argument("--backend", choices=["auto", "tensorflow", "jax"], default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512], help="images a step")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--xla", nargs="+", choices=["off", "on"], default=["off", "on"], help="on TensorFlow")
    parser.add_argument("--steps", type=int, default=20, help="steps timed of each kind")
    parser.add_argument("--size", type=int, default=599, help="pixels of the input")
    parser.add_argument("--depth-multiplier", type=float, default=1.0, help="a narrow network, to try this on a CPU")
    options = parser.parse_args(arguments)
    backend = choose_backend(options.backend)
    # Keras reads it when it is first imported, which the steps and the input do.
    os.environ.setdefault("KERAS_BACKEND", backend)
    from benchmarks import input, train_step

    library = train_step.Jax() if backend == "jax" else train_step.TensorFlow()
    print(f"{backend} on {library.device()}, {len(os.sched_getaffinity(0))} CPU cores", flush=True)
    print("precision  XLA  batch  images/s", flush=True)
    rates: dict[tuple[str, str, int], float] = {}
    steps = {}
    network = {"input_size": options.size, "depth_multiplier": options.depth_multiplier}
    compilers = [xla for xla in library.compilers if backend == "jax" or xla in options.xla]
    for precision, xla in [(precision, xla) for precision in options.precisions for xla in compilers]:
        step = steps[precision, xla] = library.step(precision=precision, xla=xla == "on", **network)
        for batch in options.batches:
            row = f"{precision:9s}  {xla:3s}  {batch:5d}"
            noise = tuple(library.put(part) for part in input.noise(options.size, batch))
            try:
                rates[precision, xla, batch] = rate(step, [noise] * (WARM_UP + options.steps))
            except library.out_of_memory as error:
                print(f"{row}  {type(error).__name__}: {str(error)[:80]!r}", flush=True)
                break
            print(f"{row}  {rates[precision, xla, batch]:8.1f}", flush=True)
    if not rates:
        sys.exit("no batch fits this accelerator; give smaller ones with --batches")
    precision, xla, batch = max(rates, key=lambda setting: rates[setting])
    encoded, count = [path.read_bytes() for path in options.images], batch * (WARM_UP + options.steps)
    with benchmarks.scratch() as folder:
        records = input.write_images(encoded, count, folder)
        windows = input.training_windows(records, count, options.size, batch)
        fed = rate(steps[precision, xla], (tuple(map(library.put, part)) for part in windows))
    print(f"{precision:9s}  {xla:3s}  {batch:5d}  {fed:8.1f} end to end, from JPEGs", flush=True)
    benchmarks.report(fed, PAPER, "images/s end to end")


if __name__ == "__main__":
    main()
