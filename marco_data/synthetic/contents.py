"""The contents of drops: nothing, dust, phase separation, precipitate and crystals.

Each kind that `plan.KINDS` lists has a function that draws it into a scene; `CONTENTS` names them. Their random draws
have an order on which every stored image depends.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from marco_data.synthetic import canvas


def draw_clear_drop(scene: canvas.Scene) -> None:
    """Draws nothing, or now and then a little dust."""
    if scene.chance(0.3):
        _draw_dust(scene, int(scene.rng.integers(1, 4)))


def draw_clear_drop_with_dust(scene: canvas.Scene) -> None:
    """Draws specks and now and then a fibre in or under a clear drop."""
    _draw_dust(scene, int(scene.rng.integers(2, 8)))
    if scene.chance(0.15):
        _draw_fibre(scene)


def _draw_dust(scene: canvas.Scene, count: int) -> None:
    """Draws `count` dark specks of irregular shape anywhere in the well."""
    ink = scene.blank_ink()
    for place in scene.rng.random((count, 2)) * scene.shape[::-1]:
        size = scene.log_uniform(1.0, 3.5) * scene.unit
        for _ in range(int(scene.rng.integers(1, 4))):
            at = place + scene.rng.normal(0, 0.7 * size, 2)
            axes = tuple(max(8, round(size * 16 * scene.uniform(0.4, 1.0))) for _ in range(2))
            turn = scene.uniform(0, 180)
            middle, shade = canvas.fixed(at).tolist(), int(scene.uniform(20, 80))
            cv2.ellipse(ink, middle, axes, turn, 0, 360, (shade,), -1, cv2.LINE_AA, 4)
    scene.apply_ink(ink, 0.6)


def _draw_fibre(scene: canvas.Scene) -> None:
    """Draws a curled fibre, thin and smooth."""
    ink = scene.blank_ink()
    steps = np.linspace(0, 1, 40)
    turned = scene.uniform(0, 2 * np.pi) + np.cumsum(scene.rng.normal(0, 0.25, 40))
    length = scene.log_uniform(60, 250) * scene.unit / len(steps)
    points = scene.places(1, 20)[0] + np.cumsum(length * np.stack([np.cos(turned), np.sin(turned)], axis=1), axis=0)
    cv2.polylines(ink, [canvas.fixed(points)], False, (70,), 1, cv2.LINE_AA, 4)
    scene.apply_ink(ink, 0.6)


def draw_phase_separation(scene: canvas.Scene) -> None:
    """Draws droplets of a second liquid phase, many and small or large and merging, or large bodies of it."""
    unit = scene.unit
    style = str(scene.rng.choice(["droplets", "body", "both"], p=[0.7, 0.08, 0.22]))
    if style != "droplets":
        for _ in range(int(scene.rng.integers(1, 4))):
            _draw_inner_phase(scene)
    if style == "body":
        return
    ink = scene.blank_ink()
    typical = scene.log_uniform(2.8, 13) * unit
    room = float(np.count_nonzero(scene.drop > 0))
    # A log-normal spread of 0.6 doubles the mean area.
    count = int(np.clip(scene.log_uniform(0.2, 0.8) * room / (2 * np.pi * typical**2), 20, 1800))
    density = cv2.exp(canvas.fractal(scene.rng, scene.shape, 250 * unit, 40 * unit, 0.6))
    contrast = scene.uniform(0.3, 0.7)
    sizes = typical * np.clip(scene.rng.lognormal(0, 0.6, count), 0.3, 5)
    for place, radius in zip(scene.places(count, typical, density), sizes, strict=True):
        _draw_droplet(scene, ink, place, float(radius), contrast)
    scene.apply_ink(ink, 0.8, clipped=True)


def _draw_droplet(scene: canvas.Scene, ink: np.ndarray, place: np.ndarray, radius: float, contrast: float) -> None:
    """Draws a droplet as a small lens: a dark rim, thicker away from the lamp, around a bright middle."""
    lamp = np.asarray(scene.lamp)
    rim = float(np.clip(0.32 * radius, 1.5 * scene.unit, 7 * scene.unit))
    middle_shade = 1 - 0.2 * contrast
    rings = ((radius, 0.0, 1 - contrast), (radius - rim, 0.45 * rim, middle_shade), (0.45 * radius, 0.3 * rim, 1.07))
    for size, shift, shade in rings:
        middle = canvas.fixed(place + lamp * shift).tolist()
        cv2.circle(ink, middle, max(6, round(size * 16)), (round(128 * shade),), -1, cv2.LINE_AA, 4)


def _draw_inner_phase(scene: canvas.Scene) -> None:
    """Draws a large body of the second phase: a brownish fold of varying width, softly shaded inside."""
    rng, unit = scene.rng, scene.unit
    depth = float(scene.drop.max())
    place = scene.places(1, 0.4 * depth)[0]
    radius = depth * scene.uniform(0.35, 0.8)
    body = canvas.distance_to_outline(scene.shape, (place[0], place[1]), radius, canvas.wobble(rng, 0.25))
    body = np.minimum(body, scene.drop - 6 * unit)
    thick = np.clip(0.5 + 0.8 * canvas.smooth(rng, scene.shape, 0.25 * min(scene.shape)), 0, 1.3)
    fold = canvas.bump(body, 0, scene.uniform(1.5, 3.5) * unit) * thick
    shade = np.clip(1 - body / np.float32(scene.uniform(20, 90) * unit), 0, 1) * (body > 0) * thick
    matter = np.float32(scene.uniform(0.3, 1.2)) * fold + np.float32(scene.uniform(0.05, 0.5)) * shade * shade
    _darken(scene, matter)
    scene.light *= 1 + np.float32(scene.uniform(0.02, 0.12)) * canvas.bump(body, -4 * unit, 2 * unit)


def draw_light_precipitate(scene: canvas.Scene) -> None:
    """Draws a fine sandy haze over the drop, a little denser in places."""
    unit = scene.unit
    spread = _spread(scene, scene.uniform(0.3, 0.8))
    _add_sand(scene, spread, scene.uniform(0.03, 0.09), scene.uniform(0.7, 1.1))
    count, size = int(scene.log_uniform(2000, 9000)), scene.uniform(0.7, 1.0) * unit
    _add_grains(scene, spread, count, size, scene.uniform(0.1, 0.3))
    _darken(scene, spread * np.float32(scene.uniform(0.08, 0.3)))


def draw_heavy_precipitate(scene: canvas.Scene) -> None:
    """Draws dark matter through the whole drop, mottled and clumped."""
    unit = scene.unit
    spread = _spread(scene, scene.uniform(0.2, 0.6))
    clumps = canvas.fractal(scene.rng, scene.shape, scene.log_uniform(8, 40) * unit, 2 * unit, scene.uniform(0.6, 0.9))
    matter = np.clip(clumps * np.float32(0.35) + np.float32(scene.uniform(0.9, 1.6)), 0, 3) * spread
    _darken(scene, matter * np.float32(scene.log_uniform(0.35, 0.9)))
    _add_sand(scene, spread, scene.uniform(0.02, 0.08), scene.uniform(0.7, 1.3))


def draw_granular_precipitate(scene: canvas.Scene) -> None:
    """Draws thousands of separate dark grains."""
    unit = scene.unit
    spread = _spread(scene, scene.uniform(0.3, 0.9))
    uneven = spread * cv2.exp(0.7 * canvas.fractal(scene.rng, scene.shape, 120 * unit, 8 * unit, 0.7))
    count, size = scene.log_uniform(10000, 30000), scene.uniform(0.7, 1.0)
    for share, factor in ((0.8, 1.0), (0.18, 1.5), (0.02, 2.0)):
        _add_grains(scene, uneven, int(count * share), size * factor * unit, scene.uniform(0.2, 0.5))
    _add_sand(scene, spread, scene.uniform(0.04, 0.1), scene.uniform(0.7, 1.1))
    _darken(scene, spread * np.float32(scene.uniform(0.1, 0.4)))


def draw_film(scene: canvas.Scene) -> None:
    """Draws a skin over the drop, wrinkled and torn, with fine grain in it."""
    rng, unit = scene.rng, scene.unit
    spread = _spread(scene, scene.uniform(0.1, 0.5))
    folds = canvas.fractal(rng, scene.shape, scene.uniform(60, 160) * unit, 4 * unit, 0.55)
    ridges = cv2.exp(-np.abs(folds) * np.float32(scene.uniform(5, 12)))
    # A surface of this height in slanted light: its difference to itself, shifted.
    move = np.array([[1, 0, 2.5 * unit], [0, 1, 2.5 * unit]], np.float32)
    relief = folds - cv2.warpAffine(folds, move, folds.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    surface = scene.uniform(0.05, 0.25) * relief - scene.uniform(0.05, 0.25) * ridges
    scene.light *= np.clip(1 + surface * spread, 0.1, 2)
    _add_sand(scene, spread, scene.uniform(0.03, 0.08), scene.uniform(0.7, 1.1))
    _darken(scene, spread * np.float32(scene.uniform(0.1, 0.4)))


def _spread(scene: canvas.Scene, uneven: float) -> canvas.Field:
    """Returns the density of matter, 0 … 1, float32 [height, width]: the drop, thinner in parts by up to `uneven`."""
    depth = np.float32(max(float(scene.drop.max()), 1.0))
    inward = np.clip(scene.drop / depth, 0, 1)
    middle = scene.uniform(-0.8, 0.8)
    patches = canvas.fractal(scene.rng, scene.shape, 250 * scene.unit, 30 * scene.unit, 0.5) * np.float32(0.5)
    thin = np.clip(np.float32(0.5) + patches + np.float32(middle) * (inward - np.float32(0.4)), 0, 1)
    return (1 - np.float32(uneven) * thin) * scene.inside(10)


def _add_sand(scene: canvas.Scene, spread: canvas.Field, contrast: float, size: float) -> None:
    """Draws fine grain of about `size` units; dark specks are stronger than bright ones."""
    grain = cv2.GaussianBlur(canvas.white(scene.rng, scene.shape), (0, 0), max(0.6, size * scene.unit))
    coarse = canvas.fractal(scene.rng, scene.shape, 16 * scene.unit, 3 * scene.unit, 0.9)
    deviation = float(cv2.meanStdDev(grain)[1][0, 0])
    mixed = grain * np.float32(1 / max(deviation, 1e-6)) + np.float32(0.6) * coarse
    skewed = np.minimum(mixed, np.float32(0.7))
    scene.light *= np.clip(1 + np.float32(contrast) * skewed * spread, 0.1, 2)


def _darken(scene: canvas.Scene, depth: canvas.Field) -> None:
    """Darkens by absorption of optical depth `depth`, and adds it to the extinction that colours the light."""
    scene.light *= cv2.exp(-depth)
    scene.extinction = depth if scene.extinction is None else scene.extinction + depth


def _add_grains(scene: canvas.Scene, spread: canvas.Field, count: int, sigma: float, contrast: float) -> None:
    """Scatters `count` grains of radius about `sigma` pixels."""
    dots = np.zeros(scene.shape, np.float32)
    places = scene.places(count, 3 * scene.unit, spread).astype(np.int32)
    x = np.clip(places[:, 0], 0, scene.shape[1] - 1)
    y = np.clip(places[:, 1], 0, scene.shape[0] - 1)
    dots[y, x] = scene.rng.uniform(0.3, 1.0, count).astype(np.float32)
    sigma = max(sigma, 0.6)
    blurred = cv2.GaussianBlur(dots, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2)
    scene.light *= cv2.exp(-np.float32(contrast) * blurred)


class Solid(NamedTuple):
    """A convex solid around the origin, about 1 across: vertices float [n, 3] and faces as lists of vertex numbers."""

    vertices: np.ndarray
    faces: list[list[int]]


def prism(sides: int, radius: float, half_height: float, cap: float, aspect: float) -> Solid:
    """Returns a prism along z, widened in x by `aspect`; `cap`: height of its pyramids in radii, 0 for flat ends."""
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


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Returns a random rotation, float [3, 3]."""
    turn, upper = np.linalg.qr(rng.standard_normal((3, 3)))
    return turn * np.sign(np.diag(upper))


def draw_solid(
    scene: canvas.Scene,
    ink: np.ndarray,
    solid: Solid,
    rotation: np.ndarray,
    centre: np.ndarray,
    size: float,
    contrast: float,
) -> None:
    """Draws a transparent solid of `size` pixels when grown: faces slightly shaded, edges dark away from the lamp."""
    turned = solid.vertices @ rotation.T
    points = turned[:, :2] * (size * scene.growth) + np.asarray(centre)
    fixed = canvas.fixed(points)
    lamp, unit = scene.lamp, scene.unit
    direction = np.array([*lamp, 0.6]) / np.hypot(1.0, 0.6)
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
        cv2.fillConvexPoly(ink, fixed[face], (int(np.clip(128 * shade, 10, 250)),), cv2.LINE_AA, 4)
    for face, _ in front:
        cv2.polylines(ink, [fixed[face]], True, (round(128 * (1 - 0.2 * contrast)),), fine, cv2.LINE_AA, 4)
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    for start, end in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        outward = (start + end) / 2 - np.asarray(centre)
        away = -float(outward @ np.asarray(lamp)) / max(float(np.linalg.norm(outward)), 1e-6)
        shade = 1 - contrast * (0.35 + 0.45 * max(0.0, away))
        thick = fine if away < 0.2 else max(fine, round((1 + 2.5 * away * contrast) * unit))
        side = canvas.fixed(np.array([start, end]))
        cv2.polylines(ink, [side], False, (int(128 * max(0.05, shade)),), thick, cv2.LINE_AA, 4)


def draw_needles(scene: canvas.Scene) -> None:
    """Draws straight thin needles: scattered, in sheaves, or radiating from common points."""
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
            reach = length * rng.uniform(0.4, 1.1) * scene.growth
            jitter = rng.normal(0, 8 if style != "scattered" else 70, 2) * unit
            start = centre + jitter - (0.5 * reach * along if style == "scattered" or rng.random() < 0.3 else 0)
            thick, strength = width * rng.uniform(0.5, 1.3) * scene.growth**0.5, contrast * rng.uniform(0.4, 1.1)
            _draw_needle(ink, start, start + reach * along, thick, strength)
    scene.apply_ink(ink, 0.6, clipped=True)


def _draw_needle(ink: np.ndarray, start: np.ndarray, end: np.ndarray, width: float, contrast: float) -> None:
    """Draws a needle: one dark line or, if it is wide enough, two edges around a light core."""
    dark = int(128 * max(0.05, 1 - contrast))
    if width < 2.2:
        cv2.polylines(ink, [canvas.fixed(np.array([start, end]))], False, (dark,), 1, cv2.LINE_AA, 4)
        return
    along = (end - start) / max(np.linalg.norm(end - start), 1e-6)
    side = np.array([-along[1], along[0]]) * width / 2
    tip = along * width
    outline = np.array([start - tip, start + side, end + side, end + tip, end - side, start - side])
    points = canvas.fixed(outline)
    cv2.fillConvexPoly(ink, points, (int(128 * (1 + 0.12 * contrast)),), cv2.LINE_AA, 4)
    cv2.polylines(ink, [points], True, (dark,), 1, cv2.LINE_AA, 4)
    shaded = canvas.fixed(np.array([start - side, end - side]))
    cv2.polylines(ink, [shaded], False, (dark,), max(1, round(width / 4)), cv2.LINE_AA, 4)


def draw_plates(scene: canvas.Scene) -> None:
    """Draws thin plates at all angles."""
    size = scene.log_uniform(40, 140) * scene.unit

    def plate(rng: np.random.Generator) -> Solid:
        return prism(int(rng.choice([4, 4, 6])), 0.5, rng.uniform(0.02, 0.08), 0.0, rng.uniform(0.5, 1.8))

    _draw_solids(scene, int(scene.rng.integers(3, 25)), size, plate)


def draw_facetted_blocks(scene: canvas.Scene) -> None:
    """Draws single crystals with clear facets: cubes, prisms, bipyramids."""
    size = scene.log_uniform(28, 110) * scene.unit
    count = int(np.clip(scene.log_uniform(2, 60), 1, (500 * scene.unit / size) ** 2 * 0.5 + 1))
    sides = int(scene.rng.choice([4, 4, 6, 6, 3, 8]))
    cap = float(scene.rng.choice([0.0, 0.0, 0.5, 1.0]))
    slender = scene.uniform(0.5, 2.2)

    def block(rng: np.random.Generator) -> Solid:
        return prism(sides, 0.5, 0.5 * slender * rng.uniform(0.8, 1.2), cap, rng.uniform(0.8, 1.2))

    _draw_solids(scene, count, size, block)


def draw_clusters(scene: canvas.Scene) -> None:
    """Draws crystals that grow from common points: overlapping plates, rods or blades."""
    rng, unit = scene.rng, scene.unit
    ink = scene.blank_ink()
    contrast = scene.uniform(0.5, 1.0)
    size = scene.log_uniform(45, 150) * unit
    slender = scene.log_uniform(0.1, 0.5)
    for centre in scene.places(int(rng.integers(1, 9)), 40 * unit):
        scale = size * rng.uniform(0.6, 1.3)
        for _ in range(int(rng.integers(5, 22))):
            sides, radius = int(rng.choice([4, 6])), slender * rng.uniform(0.6, 1.3) / 2
            solid = prism(sides, radius, 0.5, rng.choice([0.0, 0.3]), 1.0)
            turn = random_rotation(rng)
            middle = centre + turn[:2, 2] * scale * scene.growth * 0.5
            draw_solid(scene, ink, solid, turn, middle, scale, contrast)
    scene.apply_ink(ink, 0.6, clipped=True)


def _draw_solids(scene: canvas.Scene, count: int, size: float, shape: Callable[[np.random.Generator], Solid]) -> None:
    """Draws `count` solids of about `size` pixels from the factory `shape` all over the drop."""
    rng = scene.rng
    ink = scene.blank_ink()
    contrast = scene.uniform(0.5, 1.0)
    for place in scene.places(count, 0.6 * size):
        scale = size * float(np.clip(rng.lognormal(0, 0.35), 0.4, 2.0))
        solid = shape(rng)
        # Crystals grow unevenly.
        solid = solid._replace(vertices=solid.vertices + rng.normal(0, 0.02, solid.vertices.shape))
        draw_solid(scene, ink, solid, random_rotation(rng), place, scale, contrast)
    scene.apply_ink(ink, 0.6, clipped=True)


CONTENTS: dict[str, Callable[[canvas.Scene], None]] = {
    "clear drop": draw_clear_drop,
    "clear drop with dust": draw_clear_drop_with_dust,
    "needles": draw_needles,
    "plates": draw_plates,
    "facetted blocks": draw_facetted_blocks,
    "clusters": draw_clusters,
    "phase separation": draw_phase_separation,
    "light precipitate": draw_light_precipitate,
    "heavy precipitate": draw_heavy_precipitate,
    "granular precipitate": draw_granular_precipitate,
    "film": draw_film,
}
"""By the name of the kind."""
