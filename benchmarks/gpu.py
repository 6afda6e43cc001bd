"""Training on an accelerator: images a second of the step alone, and end to end from real JPEGs.

Times the whole step of the paper's network at 599 pixels for every batch, precision and XLA setting asked for, on
windows that are in the accelerator's memory; TFLOP/s counts the convolutions alone, two operations for a multiply-add
and three passes. Of the fastest setting follow: the step without distortions, the input alone (records read, windows
decoded by the host), both together end to end, and where the time of a step goes. Records are ExampleGen's, with
`--records FOLDER`, or made of a few JPEGs. The peer is what the paper's cluster of 50 K80 did in all, 1,463 images/s.
Where TensorFlow sees no GPU but JAX does, the same Keras model and a step without distortions run on JAX.

    python -m benchmarks.gpu
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import benchmarks

if TYPE_CHECKING:
    from marco_model import example_files

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


class Setting(NamedTuple):
    """A row of the table."""

    precision: str
    xla: str
    batch: int

    def row(self, images_a_second: float | str, note: object = "") -> None:
        """Prints the row; figures come out as they are made, since time on an accelerator may end at any moment."""
        figure = images_a_second if isinstance(images_a_second, str) else f"{images_a_second:8.1f}"
        print(f"{self.precision:9s}  {self.xla:3s}  {self.batch:5d}  {figure}  {note}".rstrip(), flush=True)


def measure(library: Any, options: argparse.Namespace, compilers: list[str]) -> dict[Setting, float]:
    """Prints the table and returns its images a second; what does not fit the accelerator's memory is left out."""
    from benchmarks import input, train_step

    network = {"input_size": options.size, "depth_multiplier": options.depth_multiplier}
    operations = 6 * train_step.multiply_adds(**network)
    print("precision  XLA  batch  images/s  TFLOP/s", flush=True)
    rates: dict[Setting, float] = {}
    for precision, xla in [(precision, xla) for precision in options.precisions for xla in compilers]:
        step = library.step(precision=precision, xla=xla == "on", **network)
        for batch in options.batches:
            setting = Setting(precision, xla, batch)
            noise = tuple(library.put(part) for part in input.noise(options.size, batch))
            try:
                rates[setting] = rate(step, [noise] * (WARM_UP + options.steps))
            except library.out_of_memory as error:
                setting.row(f"{type(error).__name__}: {str(error)[:80]!r}")
                break
            setting.row(rates[setting], f"{rates[setting] * operations / 1e12:7.2f}")
    return rates


def read_records(options: argparse.Namespace, count: int, folder: Path) -> "example_files.RecordIndex":
    """Returns ExampleGen's records where they are given, else `count` records of the images, written to `folder`."""
    from benchmarks import input
    from marco_model import example_files

    if not options.records:
        return input.write_images([path.read_bytes() for path in options.images], count, folder)
    return example_files.read_index([str(path) for path in sorted(options.records.glob("*tfrecord*"))])


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints a table and what the fastest row consists of, and reports."""
    parser = benchmarks.parser(__doc__, images="folder of JPEGs to make records of")
    records_help = "folder with the files of a split that ExampleGen wrote, in place of records made of --images"
    parser.add_argument("--records", type=Path, help=records_help)
    parser.add_argument("--backend", choices=["auto", "tensorflow", "jax"], default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512], help="images a step")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--xla", nargs="+", choices=["off", "on"], default=["off", "on"], help="on TensorFlow")
    parser.add_argument("--steps", type=int, default=20, help="steps timed of each kind (20)")
    parser.add_argument("--profile", type=int, default=5, help="steps whose time is taken apart, on TensorFlow (5)")
    parser.add_argument("--size", type=int, default=599, help="pixels of the input")
    parser.add_argument("--depth-multiplier", type=float, default=1.0, help="a narrow network, to try this on a CPU")
    options = parser.parse_args(arguments)
    backend = choose_backend(options.backend)
    # Keras reads it when it is first imported, which the steps and the input do.
    os.environ.setdefault("KERAS_BACKEND", backend)
    from benchmarks import input, train_step
    from marco_model import pixels

    library: Any = train_step.Jax() if backend == "jax" else train_step.TensorFlow()
    print(f"{backend} on {library.device()}, {pixels.cores()} CPU cores", flush=True)
    rates = measure(library, options, [xla for xla in library.compilers if backend == "jax" or xla in options.xla])
    if not rates:
        sys.exit("no batch fits this accelerator; give smaller ones with --batches")
    fastest = max(rates, key=lambda setting: rates[setting])
    kind = {"precision": fastest.precision, "xla": fastest.xla == "on", "input_size": options.size}
    kind["depth_multiplier"] = options.depth_multiplier
    step, count = library.step(**kind), fastest.batch * (WARM_UP + options.steps)
    noise = tuple(library.put(part) for part in input.noise(options.size, fastest.batch))
    if backend == "tensorflow":
        fastest.row(rate(library.step(augment=False, **kind), [noise] * (WARM_UP + options.steps)), "no distortions")
    with benchmarks.scratch() as folder:
        records = read_records(options, count, folder)
        if len(records) < fastest.batch:
            sys.exit(f"{len(records)} records do not make a batch of {fastest.batch}; give a larger split or --batches")
        windows = input.training_windows(records, count, options.size, fastest.batch)
        fastest.row(rate(lambda images, targets: 0.0, windows), "input alone, from records")
        end_to_end = rate(step, library.ahead(windows))
    fastest.row(end_to_end, "end to end, from records")
    if backend == "tensorflow" and options.profile:
        print(train_step.profile(lambda: step(*noise), options.profile), flush=True)
    benchmarks.report(end_to_end, PAPER, "images/s end to end")


if __name__ == "__main__":
    main()
