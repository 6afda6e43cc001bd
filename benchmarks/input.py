"""Host input of training against the input as it is commonly written, images a second on one core.

Ours is `marco_model.training_input.epoch_batches`: encoded images shuffled, of each just a random window decoded, the
same for the same seed, into uint8 batches. The peer decodes whole images, crops and distorts them one by one with
`tf.image`; in our training the accelerator distorts (`benchmarks.augmentation` tells what that costs). Images are real
JPEGs of 1280x960 pixels in memory; with `--records` both read and parse them from ExampleGen's files.

    python -m benchmarks.input
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import host_input
from benchmarks.report import report


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, default=host_input.IMAGES, help="folder of JPEGs, 599 pixels at least")
    options.add_argument("--count", type=int, default=384, help="windows a round, in batches of 32")
    options.add_argument("--rounds", type=int, default=5, help="turns for each side")
    options.add_argument("--records", action="store_true", help="both sides read records from files")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        examples = host_input.examples(chosen.images, chosen.count, Path(scratch) if chosen.records else None)
        rates = host_input.in_turns(
            {
                "ours": host_input.training_windows(examples, chosen.count),
                "peer": host_input.reference_windows(examples),
            },
            chosen.rounds,
        )
    report(rates["ours"], rates["peer"], "images/s on one core")


if __name__ == "__main__":
    host_input.one_core()
    main()
