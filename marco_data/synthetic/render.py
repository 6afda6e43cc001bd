"""One synthetic photograph from its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from marco_data.synthetic import camera, clear, crystals, other, precipitate, wells
from marco_data.synthetic.kinds import KINDS
from marco_data.synthetic.plan import Plan, Settings, generator, plan
from marco_data.synthetic.scene import Scene

_CONTENTS: dict[str, Callable[[Scene], None]] = {
    "clear drop": clear.clear_drop,
    "clear drop with dust": clear.clear_drop_with_dust,
    "needles": crystals.needles,
    "plates": crystals.plates,
    "facetted blocks": crystals.facetted_blocks,
    "clusters": crystals.clusters,
    "phase separation": other.phase_separation,
    "light precipitate": precipitate.light_precipitate,
    "heavy precipitate": precipitate.heavy_precipitate,
    "granular precipitate": precipitate.granular_precipitate,
    "film": precipitate.film,
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
    return camera.expose(scene, what.imager, brightness, blur)
