"""Crystals: needles, plates, facetted blocks and clusters of them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from marco_data.synthetic.polyhedra import Solid, draw_solid, irregular, prism, random_rotation
from marco_data.synthetic.scene import Scene


def needles(scene: Scene) -> None:
    """Straight thin needles: scattered, in sheaves, or radiating from common points."""
    rng, unit = scene.rng, scene.unit
    ink = scene.blank_ink()
    length = scene.log_uniform(50, 260) * unit
    width = scene.log_uniform(1.0, 5.0) * unit
    contrast = scene.uniform(0.3, 0.8)
    for centre in scene.places(int(rng.integers(2, 9)), 60 * unit):
        count = int(rng.integers(4, 30))
        style = rng.choice(["scattered", "sheaf", "star"])
        axis = scene.uniform(0, 2 * np.pi)
        for _ in range(count):
            angle = axis + (rng.normal(0, 0.15) if style == "sheaf" else rng.uniform(0, 2 * np.pi))
            along = np.array([np.cos(angle), np.sin(angle)])
            reach = length * rng.uniform(0.4, 1.1)
            jitter = rng.normal(0, 8 if style != "scattered" else 70, 2) * unit
            start = centre + jitter - (0.5 * reach * along if style == "scattered" or rng.random() < 0.3 else 0)
            _needle(ink, start, start + reach * along, width * rng.uniform(0.5, 1.3), contrast * rng.uniform(0.4, 1.1))
    scene.apply_ink(_within_drop(scene, ink), 0.6)


def _needle(ink: np.ndarray, start: np.ndarray, end: np.ndarray, width: float, contrast: float) -> None:
    """Draws a needle: one dark line, or where it is wide enough, two edges around a light core."""
    dark = int(128 * max(0.05, 1 - contrast))
    if width < 2.2:
        cv2.line(ink, _fixed(start), _fixed(end), dark, 1, cv2.LINE_AA, 4)
        return
    along = (end - start) / max(np.linalg.norm(end - start), 1e-6)
    side = np.array([-along[1], along[0]]) * width / 2
    tip = along * width
    outline = np.array([start - tip, start + side, end + side, end + tip, end - side, start - side])
    points = np.round(outline * 16).astype(np.int32)
    cv2.fillConvexPoly(ink, points, int(128 * (1 + 0.12 * contrast)), cv2.LINE_AA, 4)
    cv2.polylines(ink, [points], True, dark, 1, cv2.LINE_AA, 4)
    cv2.line(ink, _fixed(start - side), _fixed(end - side), dark, max(1, round(width / 4)), cv2.LINE_AA, 4)


def plates(scene: Scene) -> None:
    """Thin plates lying at all angles."""
    size = scene.log_uniform(40, 140) * scene.unit
    _solids(scene, int(scene.rng.integers(3, 25)), size, _plate)


def facetted_blocks(scene: Scene) -> None:
    """Single crystals with clear facets: cubes, prisms, bipyramids."""
    size = scene.log_uniform(28, 110) * scene.unit
    count = int(np.clip(scene.log_uniform(2, 60), 1, (500 * scene.unit / size) ** 2 * 0.5 + 1))
    sides = int(scene.rng.choice([4, 4, 6, 6, 3, 8]))
    cap = float(scene.rng.choice([0.0, 0.0, 0.5, 1.0]))
    slender = scene.uniform(0.5, 2.2)

    def block(rng: np.random.Generator) -> Solid:
        return prism(sides, 0.5, 0.5 * slender * rng.uniform(0.8, 1.2), cap, rng.uniform(0.8, 1.2))

    _solids(scene, count, size, block)


def clusters(scene: Scene) -> None:
    """Crystals grown out of common points: overlapping plates, rods or blades."""
    rng, unit = scene.rng, scene.unit
    ink = scene.blank_ink()
    contrast = scene.uniform(0.5, 1.0)
    size = scene.log_uniform(45, 150) * unit
    slender = scene.log_uniform(0.1, 0.5)
    for centre in scene.places(int(rng.integers(1, 9)), 40 * unit):
        scale = size * rng.uniform(0.6, 1.3)
        for _ in range(int(rng.integers(5, 22))):
            solid = prism(
                int(rng.choice([4, 6])), slender * rng.uniform(0.6, 1.3) / 2, 0.5, rng.choice([0.0, 0.3]), 1.0
            )
            turn = random_rotation(rng)
            root = centre + turn[:2, 2] * scale * 0.5
            draw_solid(ink, solid, turn, root, scale, contrast, scene.lamp, unit)
    scene.apply_ink(_within_drop(scene, ink), 0.6)


def _plate(rng: np.random.Generator) -> Solid:
    return prism(int(rng.choice([4, 4, 6])), 0.5, rng.uniform(0.02, 0.08), 0.0, rng.uniform(0.5, 1.8))


def _solids(scene: Scene, count: int, size: float, shape: Callable[[np.random.Generator], Solid]) -> None:
    """Draws `count` solids of about `size` pixels from the factory `shape` all over the drop."""
    rng = scene.rng
    ink = scene.blank_ink()
    contrast = scene.uniform(0.5, 1.0)
    for place in scene.places(count, 0.6 * size):
        scale = size * float(np.clip(rng.lognormal(0, 0.35), 0.4, 2.0))
        solid = irregular(shape(rng), rng, 0.02)
        draw_solid(ink, solid, random_rotation(rng), place, scale, contrast, scene.lamp, scene.unit)
    scene.apply_ink(_within_drop(scene, ink), 0.6)


def _within_drop(scene: Scene, ink: np.ndarray) -> np.ndarray:
    """Returns the drawing without what sticks out of the drop."""
    ink[scene.drop < 2 * scene.unit] = 128
    return ink


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Returns a point in OpenCV's fixed point with four fractional bits."""
    return round(float(point[0]) * 16), round(float(point[1]) * 16)
