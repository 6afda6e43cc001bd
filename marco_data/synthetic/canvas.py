"""The scene that a photograph is drawn into (`Scene`), and the fields it is drawn with: noise, outlines, edges, lines.

A field is float32 [height, width].
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np

Field = np.ndarray
STEP = 4


@functools.cache
def _noise_bank() -> Field:
    """Returns one field of normal noise [2048, 2048] per process, from which every image cuts its grain."""
    return np.random.default_rng(20180320).standard_normal((2048, 2048), dtype=np.float32)


def white(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Returns normal noise, mean 0 and standard deviation 1: a random cut of a fixed field, randomly mirrored."""
    bank = _noise_bank()
    top, left = (int(rng.integers(bank.shape[axis] - shape[axis] + 1)) for axis in (0, 1))
    cut = bank[top : top + shape[0], left : left + shape[1]]
    return cut[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]


def constant(value: float) -> Field:
    """Returns a number typed as a field: OpenCV accepts it instead of one, but its type hints do not say so."""
    return cast(Field, value)


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
        rows, columns = (max(2, int(np.ceil(side / cell)) + 1) for side in shape)
        size = (rows, columns)
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


def wobble(rng: np.random.Generator, amount: float) -> list[tuple[int, float, float]]:
    """Returns random harmonics whose amplitudes fall with their number; `amount` is about the largest."""
    return [
        (number, amount * float(rng.uniform(0.2, 1.0)) / (number - 1) ** 1.2, float(rng.uniform(0, 2 * np.pi)))
        for number in range(2, 6)
    ]


def step(distance: Field, width: float | Field) -> Field:
    """Returns 0 outside and 1 inside, with a ramp of `width` pixels (one number, or one for each pixel)."""
    if isinstance(width, float):
        ramp = cv2.multiply(distance, constant(1 / max(width, 1e-3)))
    else:
        ramp = cv2.divide(distance, cv2.max(width, constant(1e-3)))
    cv2.add(ramp, constant(0.5), dst=ramp)
    return unit_interval(ramp)


def unit_interval(field: Field) -> Field:
    """Clips a field to 0 … 1 in place and returns it; several times faster than NumPy's clip."""
    cv2.max(field, constant(0.0), dst=field)
    return cv2.min(field, constant(1.0), dst=field)


def bump(distance: Field, at: float, width: float) -> Field:
    """Returns a line of height 1 along the outline, `at` pixels inside it, nearly a Gaussian of sigma `width`."""
    # (1 − x²/9)⁴ ≈ exp(−0.44 x²): the exponential would take most of an image's time.
    line = cv2.subtract(distance, constant(float(at)))
    cv2.multiply(line, line, dst=line, scale=-1 / (9 * width * width))
    cv2.add(line, constant(1.0), dst=line)
    cv2.max(line, constant(0.0), dst=line)
    cv2.multiply(line, line, dst=line)
    return cv2.multiply(line, line, dst=line)


NEUTRAL = 128


def fixed(points: np.ndarray) -> np.ndarray:
    """Returns points in OpenCV's fixed point with four fractional bits, int32."""
    return np.round(points * 16).astype(np.int32)


@dataclasses.dataclass
class Scene:
    """A drop in its well.

    light: float32 [height, width], 1 where the lamp shines through unhindered.
    well, drop: float32 [height, width], signed distance in pixels to the outline, positive inside.
    unit: size in pixels of one pixel of an image 960 high with the whole well in view; drawn sizes scale with it.
    lamp: direction (x, y) that the light comes from; edges are dark on the other side.
    extinction: float32 [height, width] or None; depth of brown matter that absorbs blue more than red.
    growth: size of crystals, of 1 when grown; their number, places and shapes do not depend on it.
    """

    rng: np.random.Generator
    shape: tuple[int, int]
    unit: float
    light: Field
    well: Field
    drop: Field
    lamp: tuple[float, float]
    extinction: Field | None = None
    growth: float = 1.0

    def uniform(self, low: float, high: float) -> float:
        """Returns a number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """Returns a number between `low` and `high`, every ratio equally likely."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def chance(self, share: float) -> bool:
        """Returns True with probability `share`."""
        return bool(self.rng.random() < share)

    def places(self, count: int, margin: float, density: Field | None = None) -> np.ndarray:
        """Returns `count` points (x, y), float [count, 2], inside the drop and `margin` pixels from its edge.

        density: float32 [height, width], relative likelihood of a place; None for the same everywhere.
        """
        coarse = self.drop[::STEP, ::STEP]
        likely = (coarse > min(margin, 0.7 * float(coarse.max()))).astype(np.float64)
        if density is not None:
            likely = likely * density[::STEP, ::STEP] + likely * 1e-9
        bounds = np.cumsum(likely.ravel())
        if not bounds[-1] > 0:
            bounds = np.arange(1, likely.size + 1, dtype=np.float64)
        cells = np.searchsorted(bounds, self.rng.random(count) * bounds[-1], side="right")
        y, x = np.divmod(np.minimum(cells, likely.size - 1), likely.shape[1])
        return (np.stack([x, y], axis=1) + self.rng.random((count, 2))) * STEP

    def inside(self, softness: float = 2.0) -> Field:
        """Returns 1 in the drop and 0 outside, float32 [height, width], with a ramp of `softness` units."""
        return step(self.drop - self.unit * softness / 2, softness * self.unit)

    def blank_ink(self) -> np.ndarray:
        """Returns an empty drawing, uint8 [height, width]; below 128 darkens, above brightens."""
        return np.full(self.shape, NEUTRAL, np.uint8)

    def apply_ink(self, ink: np.ndarray, blur: float, *, clipped: bool = False) -> None:
        """Multiplies the light by a drawing, softened by `blur` units; `clipped`: only inside the drop."""
        if clipped:
            ink[self.drop < 2 * self.unit] = NEUTRAL
        if blur * self.unit > 0.3:
            ink = cv2.GaussianBlur(ink, (0, 0), blur * self.unit)
        cv2.multiply(self.light, ink, dst=self.light, scale=1 / NEUTRAL, dtype=cv2.CV_32F)
