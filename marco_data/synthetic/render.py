"""A synthetic photograph of a drop from its plan: well, drop, contents, camera.

`draw` makes image `index` of a set, also of a drop over time, `one_crystal` a drop with a single crystal. Below them
are the layers of a photograph in the order in which the light meets them: the bottom of the well, the drop, its
meniscus, the rim of the well, and the exposure. Every stored image depends on the order of the random draws.
"""

import dataclasses

import cv2
import numpy as np

from marco_data.synthetic import canvas, contents
from marco_data.synthetic.plan import IMAGERS, KINDS, Imager, Plan, Settings, Timeline, generator, plan

# The contents of a drop that nobody can judge.
_UNJUDGED = ("phase separation", "phase separation", "clear drop", "light precipitate")
_ONE_CRYSTAL_IMAGER = next(imager for imager in IMAGERS if imager.institution == "GlaxoSmithKline")


@dataclasses.dataclass(frozen=True)
class Drop:
    """A drawn image, uint8 [height, width, 3] RGB, its plan, and its JPEG quality."""

    image: np.ndarray
    plan: Plan
    quality: int

    def jpeg(self) -> bytes:
        """Returns the image as JPEG."""
        _, encoded = cv2.imencode(".jpg", self.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        return encoded.tobytes()


def draw(index: int, settings: Settings | None = None) -> Drop:
    """Returns image `index` (0, 1, …) of the set that `settings` describe; depends on nothing else."""
    settings = settings or Settings()
    drop_plan = plan(settings, index)
    rng = generator(settings.seed, index, "draw")
    full = (drop_plan.imager.height, drop_plan.imager.width)
    shrink = min(1.0, settings.shorter_side / min(full)) if settings.shorter_side else 1.0
    final = (round(full[0] * shrink), round(full[1] * shrink))
    # Small images are drawn twice as large and then shrunk, which keeps fine lines from breaking up.
    drawn = final if shrink > 0.5 else (2 * final[0], 2 * final[1])
    if drop_plan.timeline:
        image = _inspection(settings.seed, drop_plan, drop_plan.timeline, drawn)
    else:
        image = _photograph(rng, drop_plan, drawn)
    if drawn != final:
        image = cv2.resize(image, final[::-1], interpolation=cv2.INTER_AREA)
    return Drop(image=image, plan=drop_plan, quality=int(rng.integers(78, 93)))


def _photograph(rng: np.random.Generator, drop_plan: Plan, shape: tuple[int, int]) -> np.ndarray:
    """Draws scene, contents and camera in the order in which the light meets them."""
    kind, imager = KINDS[drop_plan.kind].name, drop_plan.imager
    scene = _empty_scene(rng, imager, shape)
    if kind != "dropless":
        _draw_drop(scene)
        drawn_kind = kind if kind in contents.CONTENTS else str(rng.choice(_UNJUDGED))
        contents.CONTENTS[drawn_kind](scene)
        _draw_meniscus(scene)
    _draw_rim(scene, imager)
    return _expose(scene, imager, *_brightness_and_blur(scene, kind))


def _inspection(seed: int, drop_plan: Plan, timeline: Timeline, shape: tuple[int, int]) -> np.ndarray:
    """Draws a drop as at its other inspections, but for what has come or gone since and how the picture is taken."""
    moment, imager = timeline.moment(drop_plan.inspection), drop_plan.imager

    def same(purpose: str) -> np.random.Generator:
        return generator(seed, drop_plan.drop, purpose)

    scene = _empty_scene(same("scene"), imager, shape)
    _draw_drop(scene)
    scene.rng = same("clear")
    contents.CONTENTS[timeline.clear](scene)
    if moment.amount:
        scene.rng, before = same("matter"), scene.light.copy()
        contents.CONTENTS[timeline.matter](scene)
        scene.light = before * (scene.light / np.maximum(before, 1e-3)) ** np.float32(moment.amount)
        scene.extinction = None if scene.extinction is None else scene.extinction * np.float32(moment.amount)
    if moment.size:
        scene.rng, scene.growth = same("crystals"), moment.size
        contents.CONTENTS[timeline.crystal](scene)
    scene.rng = same("camera")
    _draw_meniscus(scene)
    _draw_rim(scene, imager)
    image = _expose(scene, imager, *_brightness_and_blur(scene, moment.kind))
    return _taken_again(image, generator(seed, drop_plan.index, "taken"))


def _brightness_and_blur(scene: canvas.Scene, kind: str) -> tuple[float, float]:
    """Returns what `_expose` takes, out of the usual for the kinds that the imager spoils."""
    brightness = scene.uniform(110, 220)
    blur = scene.uniform(0.5, 1.0)
    if kind == "out of focus":
        blur = scene.uniform(3.5, 9)
    elif kind == "dark":
        brightness = scene.uniform(8, 40)
    elif kind == "overexposed":
        brightness = scene.uniform(330, 600)
    return brightness, blur


def _taken_again(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a photograph, uint8 [height, width, 3], as an imager that comes back takes it: nearly the same.

    The plate is placed within a hundredth of the image's side, lamp and sensor vary by some per cent and grey levels.
    """
    height, width = image.shape[:2]
    (right, down), light = rng.normal(0, 0.004 * min(height, width), 2), rng.normal(1, [0.01] * 3) * rng.normal(1, 0.03)
    moved = cv2.warpAffine(
        image, np.array([[1, 0, right], [0, 1, down]]), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    noise = canvas.white(rng, (height, width))[..., None] * np.float32(rng.uniform(0.5, 2))
    return np.clip(moved * light.astype(np.float32) + noise + 0.5, 0, 255).astype(np.uint8)


def one_crystal(seed: int, size: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Draws a clear sitting drop with a single facetted crystal about `size` pixels across.

    Returns the photograph, uint8 [960, 1280, 3] RGB, and the pixels that the crystal covers, bool [960, 1280].
    """
    rng = generator(seed, 0, "one crystal")
    scene = _empty_scene(rng, _ONE_CRYSTAL_IMAGER, (_ONE_CRYSTAL_IMAGER.height, _ONE_CRYSTAL_IMAGER.width))
    _draw_drop(scene)
    ink = scene.blank_ink()
    (place,) = scene.places(1, size)
    sides, height = int(rng.choice([4, 6])), 0.5 * scene.uniform(0.6, 1.4)
    solid = contents.prism(sides, 0.5, height, float(rng.choice([0.0, 0.5])), 1.0)
    contents.draw_solid(scene, ink, solid, contents.random_rotation(rng), place, size, scene.uniform(0.8, 1.0))
    covered = np.zeros(scene.shape, np.uint8)
    cv2.fillConvexPoly(covered, cv2.convexHull(cv2.findNonZero((ink != canvas.NEUTRAL).astype(np.uint8))), (1,))
    scene.apply_ink(ink, 0.6)
    _draw_meniscus(scene)
    _draw_rim(scene, _ONE_CRYSTAL_IMAGER)
    image = _expose(scene, _ONE_CRYSTAL_IMAGER, scene.uniform(140, 200), scene.uniform(0.5, 0.8))
    return image, covered.astype(bool)


def _empty_scene(rng: np.random.Generator, imager: Imager, shape: tuple[int, int]) -> canvas.Scene:
    """Returns a scene of `shape` (height, width) with the bottom of the well and the outlines of well and drop."""
    side = min(shape)
    tight = rng.random() < imager.tight
    magnification = float(rng.uniform(1.3, 2.2)) if tight else 1.0
    centre = (shape[1] * float(rng.uniform(0.46, 0.54)), shape[0] * float(rng.uniform(0.46, 0.54)))
    oil = imager.setup == "oil"
    roundness = float(rng.uniform(3.0, 6.0)) if oil else float(rng.choice([2.0, 2.2, 4.0], p=[0.6, 0.2, 0.2]))
    size = side * magnification * float(rng.uniform(0.5, 0.6) if oil else rng.uniform(0.43, 0.5))
    well = canvas.distance_to_outline(shape, centre, size, canvas.wobble(rng, 0.008), roundness)
    reach = side * magnification * float(rng.uniform(0.3, 0.42) if oil else rng.uniform(0.24, 0.42))
    spread = max(0.0, size - reach) * (0.2 if oil else 0.75)
    angle = float(rng.uniform(0, 2 * np.pi))
    drop_centre = (centre[0] + spread * np.cos(angle), centre[1] + spread * np.sin(angle))
    drop = canvas.distance_to_outline(shape, drop_centre, reach, canvas.wobble(rng, 0.04 if oil else 0.1))
    gap = float(rng.uniform(0.0, 6.0)) * side / 960
    drop = np.minimum(drop, well - gap)
    direction = float(rng.uniform(0, 2 * np.pi))
    scene = canvas.Scene(
        rng=rng,
        shape=shape,
        unit=side / 960 * magnification**0.6,
        light=np.ones(shape, np.float32),
        well=well,
        drop=drop,
        lamp=(np.cos(direction), np.sin(direction)),
    )
    _draw_bottom(scene)
    return scene


def _draw_bottom(scene: canvas.Scene) -> None:
    """Draws grain, machining marks and scratches of the plastic."""
    rng, unit = scene.rng, scene.unit
    scene.light += scene.uniform(0.0005, 0.004) * canvas.fractal(rng, scene.shape, 8 * unit, 2 * unit, 0.9)
    if scene.chance(0.75):
        marks = np.float32(scene.uniform(0.006, 0.02)) * _streaks(scene)
        scene.light += marks * (np.float32(scene.uniform(0.05, 0.5)) + scene.inside(20))
    if scene.chance(0.5):
        _draw_scratches(scene)


def _streaks(scene: canvas.Scene) -> np.ndarray:
    """Returns radial machining marks of a turned mould, float32 [height, width], mean about 0."""
    rows, columns = (side // 2 for side in scene.shape)
    marks: np.ndarray = scene.rng.standard_normal((512, 24), dtype=np.float32)
    marks = cv2.GaussianBlur(marks, (0, 0), sigmaX=4, sigmaY=0.7) * 3
    y, x = np.unravel_index(int(scene.drop[::8, ::8].argmax()), scene.drop[::8, ::8].shape)
    polar = cv2.resize(marks, (256, 1024), interpolation=cv2.INTER_LINEAR)
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
    flat = cv2.warpPolar(
        polar, (columns, rows), (float(x) * 4.0, float(y) * 4.0), float(np.hypot(rows, columns)), flags
    )
    return canvas.enlarge(flat, scene.shape)


def _draw_scratches(scene: canvas.Scene) -> None:
    """Draws fine scratches anywhere on the plastic."""
    ink = scene.blank_ink()
    for _ in range(int(scene.rng.integers(1, 8))):
        start = scene.rng.random(2) * scene.shape[::-1]
        angle, bend = scene.uniform(0, 2 * np.pi), scene.uniform(-0.4, 0.4)
        length = scene.log_uniform(100, 600) * scene.unit
        steps = np.linspace(0, 1, 12)
        turned = angle + bend * steps
        points = start + length * np.stack([steps * np.cos(turned), steps * np.sin(turned)], axis=1)
        shade = round(128 * (1 + scene.uniform(-0.08, 0.05)))
        cv2.polylines(ink, [canvas.fixed(points)], False, (shade,), 1, cv2.LINE_AA, 4)
    scene.apply_ink(ink, 0.5)


def _draw_drop(scene: canvas.Scene) -> None:
    """Draws the drop as a lens: a little brighter or darker than its surroundings and darker towards its edge."""
    depth = float(max(scene.drop.max(), 1.0))
    dome = cv2.sqrt(canvas.unit_interval(cv2.multiply(scene.drop, canvas.constant(1 / depth))))
    scene.light *= 1 + np.float32(scene.uniform(0.0, 0.12)) * dome
    scene.light *= 1 - np.float32(scene.uniform(0.04, 0.16)) * scene.inside()


def _draw_meniscus(scene: canvas.Scene) -> None:
    """Draws the drop's edge: a fine dark line, which widens into a soft dark crescent where the drop is steep."""
    rng, unit = scene.rng, scene.unit
    steep = canvas.smooth(rng, scene.shape, 0.45 * min(scene.shape))
    steep = np.clip(steep * 0.9 + np.float32(scene.uniform(-0.6, 0.3)), 0, 1.2)
    width = scene.log_uniform(10, 50) * unit * steep * steep
    dark = (1 - canvas.step(scene.drop - width * np.float32(0.7), 1.5 * unit + 1.2 * width)) * (scene.drop > 0)
    dark = cv2.GaussianBlur(dark.astype(np.float32), (0, 0), 0.8 * unit) * np.clip(width / (4 * unit), 0, 1)
    scene.light *= 1 - np.float32(scene.uniform(0.6, 0.97)) * dark
    strength = np.clip(0.7 + 0.5 * canvas.smooth(rng, scene.shape, 0.3 * min(scene.shape)), 0.2, 1.2)
    line = canvas.bump(scene.drop, 0, scene.uniform(0.9, 1.8) * unit)
    scene.light *= 1 - np.float32(scene.uniform(0.15, 0.6)) * strength * line
    scene.light *= 1 + np.float32(scene.uniform(0.0, 0.12)) * strength * canvas.bump(scene.drop, -3 * unit, 1.8 * unit)


def _draw_rim(scene: canvas.Scene, imager: Imager) -> None:
    """Draws the well's edge and the area beyond it: an opaque ring, or walls of clear plastic."""
    if float(scene.well.min()) > 0:
        return
    opaque = scene.chance(imager.dark_ring)
    beyond = _opaque_ring(scene) if opaque else _clear_wall(scene)
    edge = canvas.step(scene.well, scene.uniform(1.5, 4) * scene.unit)
    scene.light = scene.light * edge + beyond * (1 - edge)
    _draw_inner_wall(scene, scene.uniform(0.2, 0.7) if opaque else scene.uniform(0.1, 0.4))
    for _ in range(int(scene.rng.integers(2, 5))):
        line = canvas.bump(scene.well, scene.uniform(-9, 6) * scene.unit, scene.uniform(0.8, 2.0) * scene.unit)
        scene.light += np.float32(scene.uniform(-0.3, 0.3)) * line
    np.clip(scene.light, 0.0, None, out=scene.light)


def _opaque_ring(scene: canvas.Scene) -> np.ndarray:
    """Returns the light of a black ring, smooth or sparkling, and of the bright plate beyond it, out of focus."""
    rng, unit = scene.rng, scene.unit
    roughness = np.float32(scene.log_uniform(0.05, 0.6))
    grain = canvas.fractal(rng, scene.shape, 12 * unit, 2 * unit, 0.9)
    ring = np.float32(scene.uniform(0.02, 0.1)) * np.clip(1 + roughness * grain, 0, 3)
    outer = canvas.step(-scene.well - scene.uniform(90, 200) * unit, scene.uniform(4, 30) * unit)
    return ring * (1 - outer) + np.float32(scene.uniform(0.7, 1.05)) * outer


def _clear_wall(scene: canvas.Scene) -> np.ndarray:
    """Returns the light of slanted clear walls: bands along the outline, brighter or darker than the bottom."""
    band = np.full(scene.shape, scene.uniform(0.6, 1.0), np.float32)
    at = 0.0
    for _ in range(int(scene.rng.integers(2, 5))):
        at -= scene.log_uniform(15, 120) * scene.unit
        outside = 1 - canvas.step(scene.well - at, scene.log_uniform(3, 40) * scene.unit)
        band += np.float32(scene.uniform(-0.2, 0.2)) * outside
        if scene.chance(0.6):
            line = canvas.bump(scene.well, at, scene.uniform(1.5, 5) * scene.unit)
            band += np.float32(scene.uniform(-0.3, 0.15)) * line
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in scene.shape)
    band += np.float32(scene.uniform(0, 0.2)) * (np.float32(scene.lamp[0]) * x + np.float32(scene.lamp[1]) * y[:, None])
    return np.clip(band, 0.25, 1.15, out=band)


def _draw_inner_wall(scene: canvas.Scene, strength: float) -> None:
    """Draws the foot of the wall, seen on one side as a dark crescent within the well."""
    slope = np.clip(canvas.smooth(scene.rng, scene.shape, 0.6 * min(scene.shape)) + np.float32(0.2), 0, 1)
    wall = (1 - canvas.step(scene.well - 25 * scene.unit * slope, (4 + 20 * slope) * scene.unit)) * (scene.well > 0)
    scene.light *= 1 - np.float32(strength) * wall * slope


def _expose(scene: canvas.Scene, imager: Imager, brightness: float, blur: float) -> np.ndarray:
    """Returns the photograph, uint8 [height, width, 3] RGB.

    brightness: mean grey value (0 … 255) of unhindered light; more than 255 overexposes.
    blur: sigma of the lens in units; about 0.7 is sharp.
    """
    light = cv2.GaussianBlur(scene.light, (0, 0), max(0.4, blur * scene.unit))
    grey = scene.chance(imager.grey)
    lamps = _lamps(scene, imager, grey)
    lights = [light] if grey else _absorption(scene, light)
    grain = canvas.white(scene.rng, scene.shape) * np.float32(scene.log_uniform(0.6, 2.0))
    pixels = []
    for lamp, colour in zip(lamps, lights, strict=True):
        cv2.multiply(lamp, colour, dst=lamp, scale=brightness)
        pixels.append(cv2.add(lamp, grain, dtype=cv2.CV_8U))
    return cv2.merge(pixels * 3 if grey else _with_fringes(scene, pixels))


def _lamps(scene: canvas.Scene, imager: Imager, grey: bool) -> list[canvas.Field]:
    """Returns the light of the lamp over the image, about 1: red, green and blue, or one field if `grey`."""
    rng = scene.rng
    channels = 1 if grey else 3
    y, x = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 32), indexing="ij")
    slope = rng.normal(0, 0.05, 2)
    light = 1 + slope[0] * x + slope[1] * y - scene.uniform(0, 0.12) * (x * x + y * y)
    tint = rng.normal(0, 0.08 * imager.saturation, channels)
    curves = np.stack([x, y, x * y, x * x - y * y], axis=-1)
    stain = curves @ rng.normal(0, 0.035 * imager.saturation, (4, channels))
    coarse = light[..., None] * (1 + tint + (0 if grey else stain))
    return [canvas.enlarge(coarse[..., channel].astype(np.float32), scene.shape) for channel in range(channels)]


def _absorption(scene: canvas.Scene, light: canvas.Field) -> list[canvas.Field]:
    """Returns red, green and blue light: matter absorbs blue most, which makes it brown."""
    if scene.extinction is None:
        return [light] * 3
    brown = scene.uniform(0, 0.6)
    return [cv2.multiply(light, cv2.exp(scene.extinction * np.float32(part * brown))) for part in (0.5, 0.0, -0.5)]


def _with_fringes(scene: canvas.Scene, pixels: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the channels with red and blue magnified slightly differently, as by a simple lens."""
    height, width = scene.shape
    fringe = scene.uniform(-0.0012, 0.0012)
    for channel, scale in ((0, 1 + fringe), (2, 1 - fringe)):
        move = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]])
        pixels[channel] = cv2.warpAffine(pixels[channel], move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return pixels
