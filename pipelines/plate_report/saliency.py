"""SmoothGrad overlays of the images that look most like crystals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from marco_data.image_files import encoded_image
from marco_data.progress import progress
from pipelines.plate_report.collector import ScoredImage
from pipelines.plate_report.crystal_classes import crystal_score
from pipelines.plate_report.thumbnails import Thumbnail, as_thumbnail

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier


def overlays(
    classifier: LoadedClassifier,
    images: Sequence[ScoredImage],
    crystals: Sequence[int],
    count: int,
    size: int,
    samples: int | None = None,
) -> dict[Path, Thumbnail]:
    """Explains the `count` images with the highest crystal scores; by path, the longer side at most `size` pixels.

    Each shows what moves the crystal class that scored highest there. The files are read again, one at a time. Raises
    InputError where the model was exported without gradients.
    """
    from PIL import Image

    from marco_model.attribution import SAMPLES, class_gradient, smoothgrad
    from marco_model.overlay import overlay

    gradient = class_gradient(classifier.logits)
    ranked = sorted(images, key=lambda image: -float(crystal_score(image.scores, crystals)))[:count]
    made: dict[Path, Thumbnail] = {}
    with progress("explaining", len(ranked)) as advance:
        for image in ranked:
            seen = classifier.images([encoded_image(image.path)])[0]
            index = max(crystals, key=lambda number: image.scores[number])
            attribution = smoothgrad(gradient, seen, int(index), samples=samples or SAMPLES)
            picture = Image.fromarray(np.ascontiguousarray(overlay(seen, attribution)))
            picture.thumbnail((size, size))
            made[image.path] = as_thumbnail(picture)
            advance(1)
    return made
