"""The photograph while it is being drawn: how much light each pixel lets through, and where the drop is."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.fields import Field

NEUTRAL = 128


@dataclasses.dataclass
class Scene:
    """A drop in its well.

    light: float32 [height, width], 1 where the lamp shines through unhindered.
    well, drop: float32 [height, width], signed distance in pixels to the outline, positive inside.
    unit: pixels that were one pixel if the image were 960 high and the whole well in view; drawn sizes scale with it.
    lamp: direction (x, y) that the light comes from, which decides the dark sides of all edges.
    extinction: float32 [height, width] or None; depth of brown matter that absorbs blue more than red.
    """

    rng: np.random.Generator
    shape: tuple[int, int]
    unit: float
    light: Field
    well: Field
    drop: Field
    lamp: tuple[float, float]
    extinction: Field | None = None

    def uniform(self, low: float, high: float) -> float:
        """Returns a number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """Returns a number between `low` and `high`, every ratio equally likely."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def chance(self, share: float) -> bool:
        """Returns true in `share` of the cases."""
        return bool(self.rng.random() < share)

    def places(self, count: int, margin: float, density: Field | None = None) -> np.ndarray:
        """Returns `count` points (x, y), float [count, 2], inside the drop and `margin` pixels from its edge.

        density: float32 [height, width], relative likelihood of a place; None for the same everywhere.
        """
        coarse = self.drop[:: fields.STEP, :: fields.STEP]
        likely = (coarse > min(margin, 0.7 * float(coarse.max()))).astype(np.float64)
        if density is not None:
            likely = likely * density[:: fields.STEP, :: fields.STEP] + likely * 1e-9
        bounds = np.cumsum(likely.ravel())
        if not bounds[-1] > 0:
            bounds = np.arange(1, likely.size + 1, dtype=np.float64)
        cells = np.searchsorted(bounds, self.rng.random(count) * bounds[-1], side="right")
        y, x = np.divmod(np.minimum(cells, likely.size - 1), likely.shape[1])
        return (np.stack([x, y], axis=1) + self.rng.random((count, 2))) * fields.STEP

    def inside(self, softness: float = 2.0) -> Field:
        """Returns 1 in the drop and 0 outside, float32 [height, width], passing over `softness` units."""
        return fields.step(self.drop - self.unit * softness / 2, softness * self.unit)

    def blank_ink(self) -> np.ndarray:
        """Returns an empty drawing, uint8 [height, width]; below 128 darkens, above brightens."""
        return np.full(self.shape, NEUTRAL, np.uint8)

    def apply_ink(self, ink: np.ndarray, blur: float) -> None:
        """Multiplies the light by a drawing, softened by `blur` units."""
        if blur * self.unit > 0.3:
            ink = cv2.GaussianBlur(ink, (0, 0), blur * self.unit)
        cv2.multiply(self.light, ink, dst=self.light, scale=1 / NEUTRAL, dtype=cv2.CV_32F)
