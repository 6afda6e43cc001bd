"""From light to pixels: the lamp's colour and unevenness, the lens, the sensor."""

from __future__ import annotations

import cv2
import numpy as np

from marco_data.synthetic import fields
from marco_data.synthetic.imagers import Imager
from marco_data.synthetic.scene import Scene


def expose(scene: Scene, imager: Imager, brightness: float, blur: float) -> np.ndarray:
    """Returns the photograph, uint8 [height, width, 3] RGB.

    brightness: grey value (0 … 255) that unhindered light would have on average; more than 255 overexposes.
    blur: sigma of the lens in units; about 0.7 is sharp.
    """
    rng, shape = scene.rng, scene.shape
    light = cv2.GaussianBlur(scene.light, (0, 0), max(0.4, blur * scene.unit))
    grey = rng.random() < imager.grey
    lamp = _lamp(scene, imager, grey) * np.float32(brightness)
    if grey:
        image = light * lamp[..., 0]
    else:
        image = cv2.merge(_colour_channels(scene, light))
        cv2.multiply(image, lamp, dst=image)
    grain = fields.white(rng, shape) * np.float32(scene.log_uniform(0.6, 2.0))
    if grey:
        pixels = cv2.add(image, grain, dtype=cv2.CV_8U)
        return cv2.merge([pixels] * 3)
    return cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)


def _lamp(scene: Scene, imager: Imager, grey: bool) -> np.ndarray:
    """Returns the light's colour over the image, float32 [height, width, 3], about 1 (one channel if `grey`)."""
    rng = scene.rng
    channels = 1 if grey else 3
    y, x = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 32), indexing="ij")
    slope = rng.normal(0, 0.05, 2)
    light = 1 + slope[0] * x + slope[1] * y - scene.uniform(0, 0.12) * (x * x + y * y)
    tint = rng.normal(0, 0.08 * imager.saturation, channels)
    curves = np.stack([x, y, x * y, x * x - y * y], axis=-1)
    stain = curves @ rng.normal(0, 0.035 * imager.saturation, (4, channels))
    coarse = light[..., None] * (1 + tint + (0 if grey else stain))
    lamp = cv2.resize(coarse.astype(np.float32), scene.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return lamp.reshape(*scene.shape, channels)


def _colour_channels(scene: Scene, light: np.ndarray) -> list[np.ndarray]:
    """Returns red, green and blue light: the lens magnifies them unequally, and matter absorbs blue most."""
    height, width = scene.shape
    channels = []
    fringe = scene.uniform(-0.0012, 0.0012)
    for scale in (1 + fringe, 1.0, 1 - fringe):
        if scale == 1.0:
            channels.append(light)
            continue
        move = np.float32([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]])
        channels.append(cv2.warpAffine(light, move, (width, height), borderMode=cv2.BORDER_REPLICATE))
    if scene.extinction is not None:
        brown = scene.uniform(0, 0.6)
        channels[0] = channels[0] * cv2.exp(scene.extinction * np.float32(0.5 * brown))
        channels[2] = channels[2] * cv2.exp(scene.extinction * np.float32(-0.5 * brown))
    return channels
