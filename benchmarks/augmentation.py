"""The training step of the paper's network with its distortions against the same step without, seconds.

Both are whole steps from uint8 windows of 599 pixels, on the same windows, in turns; the peer only maps them to
[-1, 1].

    python -m benchmarks.augmentation
"""

from __future__ import annotations

import argparse

from benchmarks import report, train_step


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch-size", type=int, default=16, help="images a step")
    options.add_argument("--rounds", type=int, default=11, help="steps of each side")
    options.add_argument("--size", type=int, default=599, help="pixels of the input")
    chosen = options.parse_args(arguments)

    import tensorflow as tf

    windows, labels = (tf.constant(part) for part in train_step.batch_of(chosen.size, chosen.batch_size))
    with_, without = (train_step.paper_step(augment=augment, input_size=chosen.size) for augment in (True, False))
    taken = train_step.in_turns(
        {"ours": lambda: float(with_(windows, labels)), "peer": lambda: float(without(windows, labels))},
        chosen.rounds,
    )
    report(taken["ours"], taken["peer"], f"seconds for a step of {chosen.batch_size} images")


if __name__ == "__main__":
    main()
