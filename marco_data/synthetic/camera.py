"""From light to pixels: the lamp's colour and unevenness, the lens, the sensor."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.fields import Field
from marco_data.synthetic.imagers import Imager
from marco_data.synthetic.scene import Scene


def expose(scene: Scene, imager: Imager, brightness: float, blur: float) -> np.ndarray:
    """Returns the photograph, uint8 [height, width, 3] RGB.

    brightness: grey value (0 … 255) that unhindered light would have on average; more than 255 overexposes.
    blur: sigma of the lens in units; about 0.7 is sharp.
    """
    light = cv2.GaussianBlur(scene.light, (0, 0), max(0.4, blur * scene.unit))
    grey = scene.chance(imager.grey)
    lamps = _lamps(scene, imager, grey)
    lights = [light] if grey else _absorbed(scene, light)
    grain = fields.white(scene.rng, scene.shape) * np.float32(scene.log_uniform(0.6, 2.0))
    pixels = []
    for lamp, colour in zip(lamps, lights, strict=True):
        cv2.multiply(lamp, colour, dst=lamp, scale=brightness)
        pixels.append(cv2.add(lamp, grain, dtype=cv2.CV_8U))
    return cv2.merge(pixels * 3 if grey else _fringed(scene, pixels))


def _lamps(scene: Scene, imager: Imager, grey: bool) -> list[Field]:
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
    return [fields.enlarge(coarse[..., channel].astype(np.float32), scene.shape) for channel in range(channels)]


def _absorbed(scene: Scene, light: Field) -> list[Field]:
    """Returns red, green and blue light: what matter there is absorbs blue most, which makes it brown."""
    if scene.extinction is None:
        return [light] * 3
    brown = scene.uniform(0, 0.6)
    return [cv2.multiply(light, cv2.exp(scene.extinction * np.float32(part * brown))) for part in (0.5, 0.0, -0.5)]


def _fringed(scene: Scene, pixels: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the channels with red and blue magnified a little unequally, as simple lenses do."""
    height, width = scene.shape
    fringe = scene.uniform(-0.0012, 0.0012)
    for channel, scale in ((0, 1 + fringe), (2, 1 - fringe)):
        move = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]])
        pixels[channel] = cv2.warpAffine(pixels[channel], move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return pixels
