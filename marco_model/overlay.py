"""A heat map over the grey image."""

from __future__ import annotations

import numpy as np

COLOURS = "inferno"
CLIPPED = 99.0
"""Percentile of an attribution above which everything is drawn alike, as Smilkov et al. 2017 (section 3.2) advise."""


def overlay(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Draws an attribution over its image: uint8 [size, size, 3] RGB.

    image: float32 [size, size, 3] in [-1, 1]. attribution: float32 [size, size], 0 or more. Where it is 0 the image
    shows in grey, where it is highest only the heat does.
    """
    import matplotlib

    grey = np.clip((image.mean(axis=-1, keepdims=True) + 1) / 2, 0, 1)
    highest = np.percentile(attribution, CLIPPED) or attribution.max() or 1.0
    heat = np.clip(attribution / highest, 0, 1)
    colours = matplotlib.colormaps[COLOURS](heat)[..., :3]
    blended = grey + heat[..., None] * (colours - grey)
    return np.round(255 * blended).astype(np.uint8)
