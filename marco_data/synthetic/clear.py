"""Clear drops: nothing in them, or dust and a bubble that mean nothing."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic.scene import Scene


def clear_drop(scene: Scene) -> None:
    """A drop that stayed clear."""
    if scene.chance(0.3):
        dust(scene, int(scene.rng.integers(1, 4)))


def clear_drop_with_dust(scene: Scene) -> None:
    """A clear drop with specks and fibres in or under it."""
    dust(scene, int(scene.rng.integers(2, 8)))
    if scene.chance(0.15):
        fibre(scene)


def dust(scene: Scene, count: int) -> None:
    """Draws `count` dark specks of irregular shape anywhere in the well."""
    ink = scene.blank_ink()
    for place in scene.rng.random((count, 2)) * scene.shape[::-1]:
        size = scene.log_uniform(1.0, 3.5) * scene.unit
        for _ in range(int(scene.rng.integers(1, 4))):
            at = place + scene.rng.normal(0, 0.7 * size, 2)
            axes = tuple(max(8, round(size * 16 * scene.uniform(0.4, 1.0))) for _ in range(2))
            turn = scene.uniform(0, 180)
            middle = (round(at[0] * 16), round(at[1] * 16))
            cv2.ellipse(ink, middle, axes, turn, 0, 360, int(scene.uniform(20, 80)), -1, cv2.LINE_AA, 4)
    scene.apply_ink(ink, 0.6)


def fibre(scene: Scene) -> None:
    """Draws a curled fibre, thin and smooth."""
    ink = scene.blank_ink()
    steps = np.linspace(0, 1, 40)
    turned = scene.uniform(0, 2 * np.pi) + np.cumsum(scene.rng.normal(0, 0.25, 40))
    length = scene.log_uniform(60, 250) * scene.unit / len(steps)
    points = scene.places(1, 20)[0] + np.cumsum(length * np.stack([np.cos(turned), np.sin(turned)], axis=1), axis=0)
    cv2.polylines(ink, [np.round(points * 16).astype(np.int32)], False, 70, 1, cv2.LINE_AA, 4)
    scene.apply_ink(ink, 0.6)
