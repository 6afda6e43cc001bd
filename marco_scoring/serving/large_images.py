"""A large image in a process of its own, which makes the network's input of it.

In a thread its decoder could not be interrupted, and NumPy would hold Python's lock for as long as it works on 50
million pixels, so that all other requests would wait. A process can be ended, gives way to the server where cores are
few, and takes its memory with it.
"""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np

from marco_model import errors, pictures, pixels

_PRIORITY = 10
"""Unix's `nice`: it gets a tenth of the time of a thread of the server that wants the same core."""
_REFUSED = 3
"""The exit status for an image that cannot be scored, with the reason on stderr."""


def prepare(encoded: bytes, preparation: pixels.Preparation, bits: int | None, seconds: float) -> np.ndarray:
    """Returns what `preparation` makes of an encoded image, turned upright, in another process.

    Raises `InputError` if it cannot be decoded, and `TimeoutError` after so many `seconds`. `bits`: see
    `pictures.upright`.
    """
    arguments = json.dumps({**dataclasses.asdict(preparation), "bits": bits})
    command = [sys.executable, "-m", __name__, arguments]
    try:
        done = subprocess.run(command, input=encoded, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"not decoded within {seconds:.0f} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        ended = f"its decoder ended with status {done.returncode}"
        raise errors.InputError(lines[-1] if done.returncode == _REFUSED and lines else ended)
    size = preparation.input_size
    return np.frombuffer(done.stdout, np.float32).reshape(3, size, size)


def main() -> None:
    """Reads an encoded image from stdin, and writes the network's input to stdout as it is in memory."""
    if hasattr(os, "nice"):
        os.nice(_PRIORITY)
    options = json.loads(sys.argv[1])
    preparation = pixels.Preparation(options["input_size"], options["shrink"])
    try:
        image = preparation(pictures.upright(sys.stdin.buffer.read(), options["bits"]))
    except errors.InputError as error:
        print(errors.one_line(error), file=sys.stderr)
        sys.exit(_REFUSED)
    sys.stdout.buffer.write(np.ascontiguousarray(image, np.float32).tobytes())


if __name__ == "__main__":
    main()
