"""A drop with exactly one crystal, and where it is: known truth for tests of attribution."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import camera, wells
from marco_data.synthetic.imagers import IMAGERS
from marco_data.synthetic.plan import generator
from marco_data.synthetic.polyhedra import draw_solid, prism, random_rotation
from marco_data.synthetic.scene import NEUTRAL

_IMAGER = next(imager for imager in IMAGERS if imager.institution == "GlaxoSmithKline")


def one_crystal(seed: int, size: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Draws a clear sitting drop with a single facetted crystal about `size` pixels across.

    Returns the photograph, uint8 [960, 1280, 3] RGB, and the pixels that the crystal covers, bool [960, 1280].
    """
    rng = generator(seed, 0, "one crystal")
    scene = wells.empty_scene(rng, _IMAGER, (_IMAGER.height, _IMAGER.width))
    wells.drop_body(scene)
    ink = scene.blank_ink()
    (place,) = scene.places(1, size)
    solid = prism(int(rng.choice([4, 6])), 0.5, 0.5 * scene.uniform(0.6, 1.4), float(rng.choice([0.0, 0.5])), 1.0)
    draw_solid(ink, solid, random_rotation(rng), place, size, scene.uniform(0.8, 1.0), scene.lamp, scene.unit)
    covered = np.zeros(scene.shape, np.uint8)
    cv2.fillConvexPoly(covered, cv2.convexHull(cv2.findNonZero((ink != NEUTRAL).astype(np.uint8))), 1)
    scene.apply_ink(ink, 0.6)
    wells.meniscus(scene)
    wells.rim(scene, _IMAGER)
    image = camera.expose(scene, _IMAGER, scene.uniform(140, 200), scene.uniform(0.5, 0.8))
    return image, covered.astype(bool)
