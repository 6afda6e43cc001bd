"""Host input of training against bare partial decoding: how near it comes to its limit, images a second on one core.

Ours is what `benchmarks.input` measures: encoded images shuffled, windows drawn by seed, decoded, put in batches. The
peer decodes random 599x599 windows of the same JPEGs and does nothing else. Both have the images in memory; with
`--records` ours reads and parses them from ExampleGen's files.

    python -m benchmarks.decode_bound
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import input, report


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, default=input.IMAGES, help="folder of JPEGs, 599 pixels at least")
    options.add_argument("--count", type=int, default=960, help="windows a round, in batches of 32")
    options.add_argument("--rounds", type=int, default=9, help="turns for each side")
    options.add_argument("--records", action="store_true", help="our side reads records from files")
    chosen = options.parse_args(arguments)
    encoded = input.real_images(chosen.images)
    with tempfile.TemporaryDirectory() as scratch:
        examples = input.training_examples(chosen.images, chosen.count, Path(scratch) if chosen.records else None)
        rates = input.in_turns(
            {
                "ours": input.training_windows(examples, chosen.count),
                "peer": input.bare_windows(encoded, chosen.count),
            },
            chosen.rounds,
        )
    report(rates["ours"], rates["peer"], "images/s on one core")


if __name__ == "__main__":
    input.one_core()
    main()
