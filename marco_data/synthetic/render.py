"""One synthetic photograph from its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from marco_data.synthetic import contents, wells
from marco_data.synthetic.canvas import NEUTRAL, Scene
from marco_data.synthetic.contents import draw_solid, prism, random_rotation
from marco_data.synthetic.plan import IMAGERS, KINDS, Plan, Settings, generator, plan

_CONTENTS: dict[str, Callable[[Scene], None]] = {
    "clear drop": contents.clear_drop,
    "clear drop with dust": contents.clear_drop_with_dust,
    "needles": contents.needles,
    "plates": contents.plates,
    "facetted blocks": contents.facetted_blocks,
    "clusters": contents.clusters,
    "phase separation": contents.phase_separation,
    "light precipitate": contents.light_precipitate,
    "heavy precipitate": contents.heavy_precipitate,
    "granular precipitate": contents.granular_precipitate,
    "film": contents.film,
}
# What may be in a drop that nobody can judge.
_UNJUDGED = ("phase separation", "phase separation", "clear drop", "light precipitate")


@dataclasses.dataclass(frozen=True)
class Drop:
    """A drawn image, uint8 [height, width, 3] RGB, and everything that is known of it."""

    image: np.ndarray
    plan: Plan
    quality: int

    @property
    def label(self) -> int:
        """Index of the class it is filed under."""
        return self.plan.label

    @property
    def institution(self) -> str:
        """Name of the institution, as in Table I."""
        return self.plan.imager.institution

    @property
    def filename(self) -> str:
        """Base name in the imager's convention."""
        return self.plan.filename

    def jpeg(self) -> bytes:
        """Returns the image as JPEG in the quality of its imager."""
        _, encoded = cv2.imencode(".jpg", self.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        return encoded.tobytes()


def draw(index: int, settings: Settings | None = None) -> Drop:
    """Returns image `index` (0, 1, …) of the set that `settings` describe; depends on nothing else."""
    settings = settings or Settings()
    what = plan(settings, index)
    rng = generator(settings.seed, index, "draw")
    full = (what.imager.height, what.imager.width)
    shrink = min(1.0, settings.shorter_side / min(full)) if settings.shorter_side else 1.0
    final = (round(full[0] * shrink), round(full[1] * shrink))
    # Small images are drawn twice as large and then shrunk, which keeps fine lines from breaking up.
    canvas = final if shrink > 0.5 else (2 * final[0], 2 * final[1])
    image = _photograph(rng, what, canvas)
    if canvas != final:
        image = cv2.resize(image, final[::-1], interpolation=cv2.INTER_AREA)
    return Drop(image=image, plan=what, quality=int(rng.integers(78, 93)))


def _photograph(rng: np.random.Generator, what: Plan, shape: tuple[int, int]) -> np.ndarray:
    """Draws scene, contents and camera in the order in which the light meets them."""
    kind = KINDS[what.kind].name
    scene = wells.empty_scene(rng, what.imager, shape)
    if kind != "dropless":
        wells.drop_body(scene)
        contents = kind if kind in _CONTENTS else str(rng.choice(_UNJUDGED))
        _CONTENTS[contents](scene)
        wells.meniscus(scene)
    wells.rim(scene, what.imager)
    brightness = scene.uniform(110, 220)
    blur = scene.uniform(0.5, 1.0)
    if kind == "out of focus":
        blur = scene.uniform(3.5, 9)
    elif kind == "dark":
        brightness = scene.uniform(8, 40)
    elif kind == "overexposed":
        brightness = scene.uniform(330, 600)
    return wells.expose(scene, what.imager, brightness, blur)


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
    image = wells.expose(scene, _IMAGER, scene.uniform(140, 200), scene.uniform(0.5, 0.8))
    return image, covered.astype(bool)
