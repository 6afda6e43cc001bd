"""What all tests share. Nothing heavy is imported here: collecting must stay quick."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read by TensorFlow, Keras and Matplotlib when they are first imported; processes that tests start inherit them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "Agg")

IMAGES = Path(__file__).parent / "data" / "images"


@pytest.fixture(scope="session")
def real_images() -> dict[str, Path]:
    """The six real MARCO images of tests/data/images by file name, such as `crystals_10.jpeg`; not to be written to."""
    return {path.name: path for path in sorted(IMAGES.glob("*.jpeg"))}
