"""Precipitate: light, heavy, granular, and as a film."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.fields import Field
from marco_data.synthetic.scene import Scene


def light_precipitate(scene: Scene) -> None:
    """A fine sandy haze over the drop, a little denser in places."""
    unit = scene.unit
    spread = _spread(scene, scene.uniform(0.3, 0.8))
    _sand(scene, spread, scene.uniform(0.03, 0.09), scene.uniform(0.7, 1.1))
    _grains(scene, spread, int(scene.log_uniform(2000, 9000)), scene.uniform(0.7, 1.0) * unit, scene.uniform(0.1, 0.3))
    _absorb(scene, spread * np.float32(scene.uniform(0.08, 0.3)))


def heavy_precipitate(scene: Scene) -> None:
    """Dark matter through the whole drop, mottled and clumped."""
    unit = scene.unit
    spread = _spread(scene, scene.uniform(0.2, 0.6))
    clumps = fields.fractal(scene.rng, scene.shape, scene.log_uniform(8, 40) * unit, 2 * unit, scene.uniform(0.6, 0.9))
    matter = np.clip(clumps * np.float32(0.35) + np.float32(scene.uniform(0.9, 1.6)), 0, 3) * spread
    _absorb(scene, matter * np.float32(scene.log_uniform(0.35, 0.9)))
    _sand(scene, spread, scene.uniform(0.02, 0.08), scene.uniform(0.7, 1.3))


def granular_precipitate(scene: Scene) -> None:
    """Thousands of separate dark grains."""
    unit = scene.unit
    spread = _spread(scene, scene.uniform(0.3, 0.9))
    uneven = spread * cv2.exp(0.7 * fields.fractal(scene.rng, scene.shape, 120 * unit, 8 * unit, 0.7))
    count, size = scene.log_uniform(10000, 30000), scene.uniform(0.7, 1.0)
    for share, factor in ((0.8, 1.0), (0.18, 1.5), (0.02, 2.0)):
        _grains(scene, uneven, int(count * share), size * factor * unit, scene.uniform(0.2, 0.5))
    _sand(scene, spread, scene.uniform(0.04, 0.1), scene.uniform(0.7, 1.1))
    _absorb(scene, spread * np.float32(scene.uniform(0.1, 0.4)))


def film(scene: Scene) -> None:
    """A skin over the drop, wrinkled and torn, with fine grain in it."""
    rng, unit = scene.rng, scene.unit
    spread = _spread(scene, scene.uniform(0.1, 0.5))
    folds = fields.fractal(rng, scene.shape, scene.uniform(60, 160) * unit, 4 * unit, 0.55)
    ridges = cv2.exp(-np.abs(folds) * np.float32(scene.uniform(5, 12)))
    relief = _relief(folds, 2.5 * unit)
    scene.light *= np.clip(
        1 + (scene.uniform(0.05, 0.25) * relief - scene.uniform(0.05, 0.25) * ridges) * spread, 0.1, 2
    )
    _sand(scene, spread, scene.uniform(0.03, 0.08), scene.uniform(0.7, 1.1))
    _absorb(scene, spread * np.float32(scene.uniform(0.1, 0.4)))


def _spread(scene: Scene, uneven: float) -> Field:
    """Where the matter lies, 0 … 1, float32 [height, width]: the whole drop, thinner in parts by up to `uneven`."""
    depth = np.float32(max(float(scene.drop.max()), 1.0))
    inward = np.clip(scene.drop / depth, 0, 1)
    middle = scene.uniform(-0.8, 0.8)
    patches = fields.fractal(scene.rng, scene.shape, 250 * scene.unit, 30 * scene.unit, 0.5) * np.float32(0.5)
    thin = np.clip(np.float32(0.5) + patches + np.float32(middle) * (inward - np.float32(0.4)), 0, 1)
    return (1 - np.float32(uneven) * thin) * scene.inside(10)


def _sand(scene: Scene, spread: Field, contrast: float, size: float) -> None:
    """Fine grain of about `size` units, dark specks stronger than bright ones."""
    grain = cv2.GaussianBlur(fields.white(scene.rng, scene.shape), (0, 0), max(0.6, size * scene.unit))
    coarse = fields.fractal(scene.rng, scene.shape, 16 * scene.unit, 3 * scene.unit, 0.9)
    deviation = float(cv2.meanStdDev(grain)[1][0, 0])
    mixed = grain * np.float32(1 / max(deviation, 1e-6)) + np.float32(0.6) * coarse
    skewed = np.minimum(mixed, np.float32(0.7))
    scene.light *= np.clip(1 + np.float32(contrast) * skewed * spread, 0.1, 2)


def _absorb(scene: Scene, depth: Field) -> None:
    """Darkens by absorption, `depth` being the optical depth, and remembers it for the colour."""
    scene.light *= cv2.exp(-depth)
    scene.extinction = depth if scene.extinction is None else scene.extinction + depth


def _grains(scene: Scene, spread: Field, count: int, sigma: float, contrast: float) -> None:
    """Scatters `count` grains of radius about `sigma` pixels."""
    dots = np.zeros(scene.shape, np.float32)
    places = scene.places(count, 3 * scene.unit, spread).astype(np.int32)
    x = np.clip(places[:, 0], 0, scene.shape[1] - 1)
    y = np.clip(places[:, 1], 0, scene.shape[0] - 1)
    dots[y, x] = scene.rng.uniform(0.3, 1.0, count).astype(np.float32)
    sigma = max(sigma, 0.6)
    blurred = cv2.GaussianBlur(dots, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2)
    scene.light *= cv2.exp(-np.float32(contrast) * blurred)


def _relief(field: Field, shift: float) -> Field:
    """Returns how a surface of this height looks in slanted light: its difference with itself, shifted."""
    move = np.float32([[1, 0, shift], [0, 1, shift]])
    return field - cv2.warpAffine(field, move, field.shape[::-1], borderMode=cv2.BORDER_REFLECT)
