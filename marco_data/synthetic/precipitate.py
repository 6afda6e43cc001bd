"""Precipitate: light, heavy, granular, and as a film."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.fields import Field
from marco_data.synthetic.scene import Scene


def light_precipitate(scene: Scene) -> None:
    """A fine sandy haze, denser in places."""
    unit = scene.unit
    spread = _spread(scene, 200, 0.7)
    _grains(scene, spread, int(scene.log_uniform(1500, 6000)), scene.uniform(0.8, 1.4) * unit, scene.uniform(0.15, 0.5))
    grain = fields.fractal(scene.rng, scene.shape, 10 * unit, 2 * unit, 0.9)
    scene.light *= np.clip(1 + scene.uniform(0.03, 0.09) * grain * spread, 0.2, 2)
    _absorb(scene, spread * np.float32(scene.uniform(0.03, 0.15)))


def heavy_precipitate(scene: Scene) -> None:
    """Dark clumped matter through most of the drop."""
    unit = scene.unit
    spread = _spread(scene, 250, 0.9)
    clumps = fields.fractal(scene.rng, scene.shape, scene.uniform(20, 90) * unit, 2 * unit, scene.uniform(0.65, 0.9))
    matter = np.clip(clumps * 0.7 + np.float32(scene.uniform(0.2, 1.0)), 0, 2.5) * spread
    _absorb(scene, matter * np.float32(scene.uniform(0.25, 0.8)))
    _grains(scene, spread, int(scene.log_uniform(1000, 5000)), scene.uniform(1.0, 2.0) * unit, scene.uniform(0.2, 0.6))


def granular_precipitate(scene: Scene) -> None:
    """Thousands of separate dark grains."""
    unit = scene.unit
    spread = _spread(scene, 160, 0.6)
    count, size = scene.log_uniform(2000, 9000), scene.uniform(1.0, 2.2)
    for share, factor in ((0.7, 1.0), (0.25, 1.6), (0.05, 2.8)):
        _grains(scene, spread, int(count * share), size * factor * unit, scene.uniform(0.3, 0.8))
    _absorb(scene, spread * np.float32(scene.uniform(0.02, 0.2)))


def film(scene: Scene) -> None:
    """A skin over the drop, wrinkled and torn, with fine grain in it."""
    rng, unit = scene.rng, scene.unit
    spread = _spread(scene, 300, 1.0)
    folds = fields.fractal(rng, scene.shape, scene.uniform(60, 160) * unit, 4 * unit, 0.55)
    ridges = cv2.exp(-np.abs(folds) * np.float32(scene.uniform(5, 12)))
    relief = _relief(folds, 2.5 * unit)
    scene.light *= np.clip(1 + (scene.uniform(0.2, 0.6) * relief - scene.uniform(0.1, 0.35) * ridges) * spread, 0.1, 2)
    grain = fields.fractal(rng, scene.shape, 8 * unit, 2 * unit, 0.9)
    scene.light *= np.clip(1 + scene.uniform(0.03, 0.1) * grain * spread, 0.2, 2)
    _absorb(scene, spread * np.float32(scene.uniform(0.05, 0.3)))


def _spread(scene: Scene, cell: float, fill: float) -> Field:
    """Where the matter lies, 0 … 1, float32 [height, width]; `fill` is about the share of the drop that it takes."""
    patches = fields.smooth(scene.rng, scene.shape, cell * scene.unit)
    soft = np.clip(patches * np.float32(1.2) + np.float32(fill), 0, 1)
    return soft * scene.inside(12)


def _absorb(scene: Scene, depth: Field) -> None:
    """Darkens by absorption, `depth` being the optical depth, and remembers it for the colour."""
    scene.light *= cv2.exp(-depth)
    scene.extinction = depth if scene.extinction is None else scene.extinction + depth


def _grains(scene: Scene, spread: Field, count: int, sigma: float, contrast: float) -> None:
    """Scatters `count` grains of radius about `sigma` pixels: dark, with a bright middle where large enough."""
    dots = np.zeros(scene.shape, np.float32)
    places = scene.places(count, 3 * scene.unit, spread).astype(np.int32)
    x = np.clip(places[:, 0], 0, scene.shape[1] - 1)
    y = np.clip(places[:, 1], 0, scene.shape[0] - 1)
    dots[y, x] = scene.rng.uniform(0.3, 1.0, count).astype(np.float32)
    sigma = max(sigma, 0.6)
    blurred = cv2.GaussianBlur(dots, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2)
    if sigma > 1.3:
        wide = cv2.GaussianBlur(dots, (0, 0), 1.5 * sigma) * np.float32(2 * np.pi * (1.5 * sigma) ** 2)
        blurred = np.float32(1.5) * wide - blurred
    scene.light *= cv2.exp(-np.float32(contrast) * blurred)


def _relief(field: Field, shift: float) -> Field:
    """Returns how a surface of this height looks in slanted light: its difference with itself, shifted."""
    move = np.float32([[1, 0, shift], [0, 1, shift]])
    return field - cv2.warpAffine(field, move, field.shape[::-1], borderMode=cv2.BORDER_REFLECT)
