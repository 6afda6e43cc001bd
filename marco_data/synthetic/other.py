"""Other: phase separation, and drops that can't be judged."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.scene import Scene


def phase_separation(scene: Scene) -> None:
    """Droplets of a second liquid phase, small and many or large and merging."""
    rng, unit = scene.rng, scene.unit
    ink = scene.blank_ink()
    typical = scene.log_uniform(4, 40) * unit
    count = int(np.clip(scene.log_uniform(20, 400), 5, (400 * unit / typical) ** 2))
    for place in scene.places(count, typical):
        _droplet(scene, ink, place, typical * float(np.clip(rng.lognormal(0, 0.5), 0.3, 3)))
    ink[scene.drop < 2 * unit] = 128
    scene.apply_ink(ink, 0.7)
    if scene.chance(0.5):
        _inner_phase(scene)


def _droplet(scene: Scene, ink: np.ndarray, place: np.ndarray, radius: float) -> None:
    """Draws a droplet: a dark rim that is thicker away from the lamp, around a bright middle."""
    middle = (round(float(place[0]) * 16), round(float(place[1]) * 16))
    lamp = np.asarray(scene.lamp)
    cv2.circle(ink, middle, max(8, round(radius * 16)), 60, -1, cv2.LINE_AA, 4)
    inner = place + lamp * radius * 0.08
    centre = (round(float(inner[0]) * 16), round(float(inner[1]) * 16))
    cv2.circle(ink, centre, max(4, round(radius * 0.8 * 16)), 132, -1, cv2.LINE_AA, 4)
    if radius > 4 * scene.unit:
        glint = place - lamp * radius * 0.2
        cv2.circle(
            ink, (round(float(glint[0]) * 16), round(float(glint[1]) * 16)), round(radius * 4), 160, -1, cv2.LINE_AA, 4
        )


def _inner_phase(scene: Scene) -> None:
    """A large body of the second phase with a soft curved border inside the drop."""
    rng = scene.rng
    place = scene.places(1, 0.5 * float(scene.drop.max()))[0]
    radius = float(scene.drop.max()) * scene.uniform(0.4, 0.8)
    body = fields.distance_to_outline(scene.shape, (place[0], place[1]), radius, fields.wobble(rng, 0.25))
    body = np.minimum(body, scene.drop - 5 * scene.unit)
    scene.light *= 1 - np.float32(scene.uniform(0.1, 0.4)) * fields.bump(body, 0, 2 * scene.unit)
    scene.light *= 1 - np.float32(scene.uniform(0.02, 0.1)) * fields.step(body, 3 * scene.unit)
