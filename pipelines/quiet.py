"""Keeps the libraries' own remarks off a command's output."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silences TensorFlow's start-up lines and Google's notes on Python versions; call it before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
