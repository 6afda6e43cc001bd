"""Other: phase separation, and drops that can't be judged."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.scene import Scene


def phase_separation(scene: Scene) -> None:
    """Droplets of a second liquid phase, small and many or large and merging, or one large body of it."""
    unit = scene.unit
    style = str(scene.rng.choice(["droplets", "body", "both"], p=[0.7, 0.08, 0.22]))
    if style != "droplets":
        for _ in range(int(scene.rng.integers(1, 4))):
            _inner_phase(scene)
    if style == "body":
        return
    ink = scene.blank_ink()
    typical = scene.log_uniform(2.8, 13) * unit
    room = float(np.count_nonzero(scene.drop > 0))
    # A log-normal spread of 0.6 doubles the mean area.
    count = int(np.clip(scene.log_uniform(0.2, 0.8) * room / (2 * np.pi * typical**2), 20, 1800))
    density = cv2.exp(fields.fractal(scene.rng, scene.shape, 250 * unit, 40 * unit, 0.6))
    contrast = scene.uniform(0.3, 0.7)
    sizes = typical * np.clip(scene.rng.lognormal(0, 0.6, count), 0.3, 5)
    for place, radius in zip(scene.places(count, typical, density), sizes, strict=True):
        _droplet(scene, ink, place, float(radius), contrast)
    ink[scene.drop < 2 * unit] = 128
    scene.apply_ink(ink, 0.8)


def _droplet(scene: Scene, ink: np.ndarray, place: np.ndarray, radius: float, contrast: float) -> None:
    """Draws a droplet as the small lens that it is: a dark rim, thicker away from the lamp, around a bright middle."""
    lamp = np.asarray(scene.lamp)
    rim = float(np.clip(0.32 * radius, 1.5 * scene.unit, 7 * scene.unit))
    middle_shade = 1 - 0.2 * contrast
    rings = ((radius, 0.0, 1 - contrast), (radius - rim, 0.45 * rim, middle_shade), (0.45 * radius, 0.3 * rim, 1.07))
    for size, shift, shade in rings:
        at = place + lamp * shift
        middle = (round(float(at[0]) * 16), round(float(at[1]) * 16))
        cv2.circle(ink, middle, max(6, round(size * 16)), round(128 * shade), -1, cv2.LINE_AA, 4)


def _inner_phase(scene: Scene) -> None:
    """A large body of the second phase: a brownish fold of changing width, shaded softly on its inside."""
    rng, unit = scene.rng, scene.unit
    depth = float(scene.drop.max())
    place = scene.places(1, 0.4 * depth)[0]
    radius = depth * scene.uniform(0.35, 0.8)
    body = fields.distance_to_outline(scene.shape, (place[0], place[1]), radius, fields.wobble(rng, 0.25))
    body = np.minimum(body, scene.drop - 6 * unit)
    thick = np.clip(0.5 + 0.8 * fields.smooth(rng, scene.shape, 0.25 * min(scene.shape)), 0, 1.3)
    fold = fields.bump(body, 0, scene.uniform(1.5, 3.5) * unit) * thick
    shade = np.clip(1 - body / np.float32(scene.uniform(20, 90) * unit), 0, 1) * (body > 0) * thick
    matter = np.float32(scene.uniform(0.3, 1.2)) * fold + np.float32(scene.uniform(0.05, 0.5)) * shade * shade
    scene.light *= cv2.exp(-matter)
    scene.extinction = matter if scene.extinction is None else scene.extinction + matter
    scene.light *= 1 + np.float32(scene.uniform(0.02, 0.12)) * fields.bump(body, -4 * unit, 2 * unit)
