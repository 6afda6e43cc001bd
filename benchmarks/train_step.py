"""One training step of the paper's network at 599 pixels against Keras's Inception-v3 at 299, seconds.

Ours is the whole step as training takes it, from uint8 windows: distortions, forward and backward pass with the
auxiliary head, smoothed loss and L2, RMSProp, moving statistics and the running average. The peer has float images
ready and does forward and backward pass, plain cross-entropy and the same optimizer. Same batch, same cores, in turns.

    python -m benchmarks.train_step
"""

from __future__ import annotations

import argparse

from benchmarks import steps
from benchmarks.report import report


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch-size", type=int, default=16, help="images a step, on both sides")
    options.add_argument("--rounds", type=int, default=11, help="steps of each side")
    options.add_argument("--sizes", type=int, nargs=2, default=(599, 299), help="pixels of ours and the peer's input")
    chosen = options.parse_args(arguments)

    import tensorflow as tf

    our_size, peer_size = chosen.sizes
    windows, labels = (tf.constant(part) for part in steps.batch_of(our_size, chosen.batch_size))
    images = tf.constant(steps.batch_of(peer_size, chosen.batch_size)[0], tf.float32) / 127.5 - 1.0
    ours = steps.paper_step(input_size=our_size)
    peer = steps.stock_step(peer_size)
    taken = steps.in_turns(
        {"ours": lambda: float(ours(windows, labels)), "peer": lambda: float(peer(images, labels))}, chosen.rounds
    )
    report(taken["ours"], taken["peer"], f"seconds for a step of {chosen.batch_size} images")


if __name__ == "__main__":
    main()
