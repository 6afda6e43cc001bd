"""Passes over a dataset as ours end them against tf.data's default, seconds.

A pass reads as many elements as two seconds have at ten milliseconds each, from a buffer that is always full: what it
takes longer is the wait for the iterator's end (`marco_model.preprocessing.without_autotuning`).

    python -m benchmarks.dataset_end
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks import report, seconds

ELEMENT_SECONDS = 0.01


def passes(dataset: Any, count: int) -> None:
    """Reads `dataset` to its end `count` times."""
    for _ in range(count):
        for _ in dataset:
            time.sleep(ELEMENT_SECONDS)


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--passes", type=int, default=12, help="passes of each side")
    options.add_argument("--seconds", type=float, default=2.0, help="how long a pass reads")
    chosen = options.parse_args(arguments)
    import tensorflow as tf

    from marco_model.preprocessing import without_autotuning

    dataset = tf.data.Dataset.range(round(chosen.seconds / ELEMENT_SECONDS)).prefetch(2)
    ours = seconds(lambda: passes(without_autotuning(dataset), chosen.passes))
    peer = seconds(lambda: passes(dataset, chosen.passes))
    report(ours / chosen.passes, peer / chosen.passes, f"seconds a pass of {chosen.seconds:g} seconds")


if __name__ == "__main__":
    main()
