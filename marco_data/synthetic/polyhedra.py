"""Convex solids seen through a microscope in bright field."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Solid(NamedTuple):
    """A convex solid around the origin, about 1 across: vertices float [n, 3] and faces as lists of vertex numbers."""

    vertices: np.ndarray
    faces: list[list[int]]


def prism(sides: int, radius: float, half_height: float, cap: float, aspect: float) -> Solid:
    """Returns a prism along z over a polygon; `aspect` widens it in x, `cap` is the height of its pyramids.

    `cap` is relative to the radius; with 0 the ends are flat.
    """
    angles = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    ring = np.stack([radius * np.cos(angles) * aspect**0.5, radius * np.sin(angles) / aspect**0.5], axis=1)
    top = np.column_stack([ring, np.full(sides, half_height)])
    bottom = np.column_stack([ring, np.full(sides, -half_height)])
    faces = [[i, (i + 1) % sides, sides + (i + 1) % sides, sides + i] for i in range(sides)]
    vertices = [bottom, top]
    if cap > 0:
        height = half_height + cap * radius
        vertices.append(np.array([[0, 0, -height], [0, 0, height]]))
        faces += [[i, (i + 1) % sides, 2 * sides] for i in range(sides)]
        faces += [[sides + i, sides + (i + 1) % sides, 2 * sides + 1] for i in range(sides)]
    else:
        faces += [list(range(sides)), list(range(sides, 2 * sides))]
    return Solid(np.concatenate(vertices), faces)


def irregular(solid: Solid, rng: np.random.Generator, amount: float) -> Solid:
    """Returns the solid with its vertices moved by about `amount`, as crystals grow unevenly."""
    return solid._replace(vertices=solid.vertices + rng.normal(0, amount, solid.vertices.shape))


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Returns a random rotation, float [3, 3]."""
    turn, upper = np.linalg.qr(rng.standard_normal((3, 3)))
    return turn * np.sign(np.diag(upper))


def draw_solid(
    ink: np.ndarray,
    solid: Solid,
    rotation: np.ndarray,
    centre: np.ndarray,
    size: float,
    contrast: float,
    lamp: tuple[float, float],
    unit: float,
) -> None:
    """Draws a transparent solid of `size` pixels: slightly shaded faces, edges dark on the side away from the lamp."""
    turned = solid.vertices @ rotation.T
    points = turned[:, :2] * size + np.asarray(centre)
    fixed = np.round(points * 16).astype(np.int32)
    direction = np.array([lamp[0], lamp[1], 0.6]) / np.hypot(1.0, 0.6)
    front: list[tuple[list[int], np.ndarray]] = []
    for face in solid.faces:
        corners = turned[face]
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        normal = normal / max(np.linalg.norm(normal), 1e-9)
        normal = normal if normal @ corners.mean(axis=0) > 0 else -normal
        if normal[2] > 0.02:
            front.append((face, normal))
    fine = max(1, round(1.1 * unit))
    for face, normal in front:
        shade = 1 + contrast * (0.16 * float(normal @ direction) - 0.06)
        cv2.fillConvexPoly(ink, fixed[face], int(np.clip(128 * shade, 10, 250)), cv2.LINE_AA, 4)
    for face, _ in front:
        cv2.polylines(ink, [fixed[face]], True, round(128 * (1 - 0.2 * contrast)), fine, cv2.LINE_AA, 4)
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    for start, end in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        outward = (start + end) / 2 - np.asarray(centre)
        away = -float(outward @ np.asarray(lamp)) / max(float(np.linalg.norm(outward)), 1e-6)
        shade = 1 - contrast * (0.35 + 0.45 * max(0.0, away))
        thick = fine if away < 0.2 else max(fine, round((1 + 2.5 * away * contrast) * unit))
        ends = [tuple(int(v) for v in np.round(p * 16)) for p in (start, end)]
        cv2.line(ink, ends[0], ends[1], int(128 * max(0.05, shade)), thick, cv2.LINE_AA, 4)
