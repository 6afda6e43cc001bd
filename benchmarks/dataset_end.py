"""Passes over a dataset as ours end them against tf.data's default, seconds.

A pass reads as many elements as two seconds have at ten milliseconds each, from a buffer that is always full: what it
takes longer is the wait for the iterator's end (`marco_model.preprocessing.without_autotuning`).

    python -m benchmarks.dataset_end
"""

import time

import tensorflow as tf

import benchmarks
from marco_model import preprocessing

ELEMENT_SECONDS = 0.01


def pass_seconds(dataset: tf.data.Dataset, passes: int) -> float:
    """Reads `dataset` to its end `passes` times and returns the mean duration, since not every pass has to wait."""

    def read() -> None:
        for _ in range(passes):
            for _ in dataset:
                time.sleep(ELEMENT_SECONDS)

    return benchmarks.seconds(read) / passes


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--passes", type=int, default=12, help="passes of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a pass reads")
    options = parser.parse_args(arguments)
    dataset = tf.data.Dataset.range(round(options.seconds / ELEMENT_SECONDS)).prefetch(2)
    ours = pass_seconds(preprocessing.without_autotuning(dataset), options.passes)
    peer = pass_seconds(dataset, options.passes)
    benchmarks.report(ours, peer, f"seconds a pass of {options.seconds:g} seconds")


if __name__ == "__main__":
    main()
