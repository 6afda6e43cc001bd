"""Random fields, outlines and profiles: what every drawing is made of.

Fields are float32 [height, width]. Whatever is smooth is computed on a coarse grid and enlarged, which is what makes a
full-size image cost a tenth of a second.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np

Field = np.ndarray
STEP = 4


@functools.cache
def _noise_bank() -> Field:
    """One field of normal noise [2048, 2048] a process, from which every image cuts its own grain."""
    return np.random.default_rng(20180320).standard_normal((2048, 2048), dtype=np.float32)


def white(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Returns normal noise, mean 0 and standard deviation 1: a random cut of a fixed field, randomly mirrored."""
    bank = _noise_bank()
    top, left = (int(rng.integers(bank.shape[axis] - shape[axis] + 1)) for axis in (0, 1))
    cut = bank[top : top + shape[0], left : left + shape[1]]
    return cut[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]


def enlarge(field: Field, shape: tuple[int, int], cubic: bool = False) -> Field:
    """Returns `field` resized to `shape`, linear or cubic."""
    interpolation = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(field), shape[::-1], interpolation=interpolation)


def smooth(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    """Returns a smooth random field, standard deviation about 0.7, with features of about `cell` pixels."""
    coarse = tuple(max(2, round(side / cell) + 1) for side in shape)
    noise = rng.standard_normal(coarse, dtype=np.float32)
    if cell >= 4 * STEP:
        noise = enlarge(noise, (shape[0] // STEP + 1, shape[1] // STEP + 1), cubic=True)
    return enlarge(noise, shape)


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], coarse: float, fine: float, persistence: float = 0.6
) -> Field:
    """Returns noise with features from `coarse` down to `fine` pixels, mean 0 and standard deviation 1.

    `persistence` is the amplitude of an octave relative to the one twice as coarse.
    """
    octaves = max(1, round(np.log2(max(coarse / fine, 1))) + 1)
    field = np.zeros((2, 2), np.float32)
    for octave in range(octaves):
        cell = coarse / 2**octave
        size = tuple(max(2, int(np.ceil(side / cell)) + 1) for side in shape)
        field = enlarge(field, size, cubic=True) + persistence**octave * rng.standard_normal(size, dtype=np.float32)
    field = enlarge(field, shape)
    mean, deviation = cv2.meanStdDev(field)
    return (field - np.float32(mean[0, 0])) / np.float32(max(deviation[0, 0], 1e-6))


def distance_to_outline(
    shape: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    harmonics: Sequence[tuple[int, float, float]] = (),
    roundness: float = 2.0,
) -> Field:
    """Returns the signed distance in pixels to a closed outline, positive inside.

    centre: (x, y) pixels. radius: pixels. harmonics: (number, amplitude relative to the radius, phase).
    roundness: exponent of the superellipse, 2 for a circle, larger for a square with round corners.
    """
    rows, columns = (side // STEP + 1 for side in shape)
    # Centres of the coarse cells in fine pixels, as cv2.resize places them.
    x = (np.arange(columns, dtype=np.float32) + 0.5) * (shape[1] / columns) - 0.5 - centre[0]
    y = ((np.arange(rows, dtype=np.float32) + 0.5) * (shape[0] / rows) - 0.5 - centre[1])[:, None]
    if roundness == 2.0:
        rho = np.sqrt(x * x + y * y)
    else:
        rho = (np.abs(x) ** roundness + np.abs(y) ** roundness) ** (1 / roundness)
    outline, slope = np.float32(1), np.float32(0)
    if harmonics:
        theta = np.arctan2(y, x)
        for number, amplitude, phase in harmonics:
            outline = outline + np.float32(amplitude) * np.cos(number * theta + np.float32(phase))
            slope = slope - np.float32(number * amplitude) * np.sin(number * theta + np.float32(phase))
    distance = radius * (outline - rho / np.float32(radius)) / np.sqrt(1 + (slope / outline) ** 2)
    return enlarge(distance.astype(np.float32), shape)


def wobble(rng: np.random.Generator, amount: float, highest: int = 5) -> list[tuple[int, float, float]]:
    """Returns random harmonics whose amplitudes fall with their number; `amount` is about the largest."""
    return [
        (number, amount * float(rng.uniform(0.2, 1.0)) / (number - 1) ** 1.2, float(rng.uniform(0, 2 * np.pi)))
        for number in range(2, highest + 1)
    ]


def step(distance: Field, width: float | Field) -> Field:
    """Returns 0 outside and 1 inside, passing over `width` pixels (one number, or one for each pixel)."""
    if isinstance(width, float):
        ramp = cv2.multiply(distance, 1 / max(width, 1e-3))
    else:
        ramp = cv2.divide(distance, cv2.max(width, 1e-3))
    cv2.add(ramp, 0.5, dst=ramp)
    return unit_interval(ramp)


def unit_interval(field: Field) -> Field:
    """Clips a field to 0 … 1, in place, and returns it; several times faster than numpy's clip."""
    cv2.max(field, 0.0, dst=field)
    return cv2.min(field, 1.0, dst=field)


def bump(distance: Field, at: float, width: float) -> Field:
    """Returns a line of height 1 along the outline, `at` pixels inside it, nearly Gaussian with sigma `width`."""
    # (1 − x²/9)⁴ ≈ exp(−0.44 x²): the exponential would take most of an image's time.
    line = cv2.subtract(distance, float(at))
    cv2.multiply(line, line, dst=line, scale=-1 / (9 * width * width))
    cv2.add(line, 1.0, dst=line)
    cv2.max(line, 0.0, dst=line)
    cv2.multiply(line, line, dst=line)
    return cv2.multiply(line, line, dst=line)
