"""What can be measured of an image without a network: size, light, contrast, sharpness, colour, noise.

All but the size is measured on a copy whose shorter side has `SIDE` pixels, so that cameras of any resolution compare,
and all but size and brightness is relative to the light, so that a stronger lamp changes the brightness alone.
"""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet

from components import evaluations
from marco_model import errors, store

NAMES = ("height", "width", "brightness", "contrast", "sharpness", "noise", "saturation", "warmth")
SIDE = 480
"""Below the shorter side of every imager of MARCO, so that their images are only ever made smaller."""

LONGEST = 4
"""Times the shorter side: well above the 4:3 of imagers."""

_LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_FAINT = 1.0  # Grey values; what is darker or flatter on average has no measurable colour or sharpness.


def image_statistics(encoded: bytes) -> np.ndarray:
    """Measures a JPEG or PNG; returns float64 [len(NAMES)], finite.

    - height, width: pixels of the file.
    - brightness: mean grey value, 0 … 255.
    - contrast: standard deviation of the grey values over their mean.
    - sharpness: log10 of the variance of the Laplacian (4 neighbours) over that of the grey values; -4 … 1.81. Blur
      lowers it (Pech-Pacheco et al. 2000, made relative to the contrast).
    - noise: standard deviation of the noise after Immerkær (1996), over the mean grey value.
    - saturation: mean of the largest less the smallest channel, over the mean of the largest; 0 (grey) … 1.
    - warmth: log2 of the mean red over the mean blue; 0 is neutral, a yellow lamp is above.

    Raises InputError where the image does not decode.
    """
    pixels = decoded(encoded)
    height, width = pixels.shape[:2]
    return np.array([height, width, *_of_pixels(_fixed_scale(middle(pixels)).astype(np.float32))], np.float64)


def decoded(encoded: bytes) -> np.ndarray:
    """Returns a JPEG's or PNG's pixels, uint8 [height, width, 3], blue first; raises InputError if there are none."""
    way = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), way) if encoded else None
    except cv2.error as error:  # Such as for a side of more than a million pixels.
        raise errors.InputError(f"does not decode: {error.err}") from None
    if pixels is None:
        raise errors.InputError("does not decode")
    return np.asarray(pixels)


def middle(pixels: np.ndarray) -> np.ndarray:
    """Returns the middle of a strip, `LONGEST` times as long as wide, and other images as they are.

    Scaled by the shorter side, a strip a few pixels wide would grow to gigabytes; the classifier sees no more of it.
    """
    most = LONGEST * min(pixels.shape[:2])
    top, left = (max(side - most, 0) // 2 for side in pixels.shape[:2])
    return pixels[top : top + most, left : left + most]


def _fixed_scale(pixels: np.ndarray) -> np.ndarray:
    """Averages over areas where the image is larger than the scale; interpolates where it is smaller."""
    shorter = min(pixels.shape[:2])
    height, width = (max(round(side * SIDE / shorter), SIDE) for side in pixels.shape[:2])
    if (height, width) == pixels.shape[:2]:
        return pixels
    way = cv2.INTER_AREA if shorter > SIDE else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=way)


def _of_pixels(pixels: np.ndarray) -> tuple[float, ...]:
    """Measures float32 [height, width, 3], blue first, 0 … 255."""
    grey = cv2.transform(pixels, np.full((1, 3), 1 / 3, np.float32))
    light, spread = _mean_and_spread(grey)
    channels = cv2.split(pixels)
    blue, _, red = (cv2.mean(channel)[0] for channel in channels)
    largest, smallest = (bound(bound(*channels[:2]), channels[2]) for bound in (cv2.max, cv2.min))
    brightest = cv2.mean(largest)[0]
    return (
        light,
        spread / max(light, _FAINT),
        _sharpness(grey, spread),
        _noise(grey) / max(light, _FAINT),
        (brightest - cv2.mean(smallest)[0]) / max(brightest, _FAINT),
        float(np.log2((red + _FAINT) / (blue + _FAINT))),
    )


def _mean_and_spread(values: np.ndarray) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(values)
    return float(mean[0, 0]), float(deviation[0, 0])


def _inside(grey: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filters, without the border, where there are no neighbours."""
    return cv2.filter2D(grey, cv2.CV_32F, kernel)[1:-1, 1:-1]


def _sharpness(grey: np.ndarray, spread: float) -> float:
    _, edges = _mean_and_spread(_inside(grey, _LAPLACIAN))
    return float(np.log10(max((edges / max(spread, _FAINT)) ** 2, 1e-4)))


def _noise(grey: np.ndarray) -> float:
    """Immerkær 1996: the mean absolute answer of a mask that is blind to edges, for a Gaussian's sigma."""
    answer = np.ascontiguousarray(_inside(grey, _IMMERKAER))
    return float(np.sqrt(np.pi / 2) / 6 * cv2.norm(answer, cv2.NORM_L1) / answer.size)


SCHEMA = pyarrow.schema(
    [
        ("imager", pyarrow.string()),
        ("name", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("statistics", pyarrow.list_(pyarrow.float64())),
        ("embedding", pyarrow.list_(pyarrow.float32())),
        ("scores", pyarrow.list_(pyarrow.float32())),
        ("thumbnail", pyarrow.binary()),
    ]
)
"""`reason` is empty where the image was measured; otherwise the lists and the thumbnail are."""


@dataclasses.dataclass(frozen=True)
class Table:
    """n measured images.

    Attributes:
        imager, name: str [n].
        statistics: float64 [n, len(NAMES)], see `components.monitoring.statistics`.
        embedding: float32 [n, d], as the classifier gives them or projected.
        scores: float32 [n, classes], rows sum to 1.
        thumbnail: JPEG bytes [n], empty for most.
    """

    imager: np.ndarray
    name: np.ndarray
    statistics: np.ndarray
    embedding: np.ndarray
    scores: np.ndarray
    thumbnail: np.ndarray

    def __len__(self) -> int:
        return len(self.imager)

    def take(self, rows: np.ndarray) -> "Table":
        """Returns the rows of a mask or of indices."""
        return Table(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})

    def of_imager(self, imager: str) -> "Table":
        """Returns the rows of an imager."""
        return self.take(self.imager == imager)

    @property
    def predicted(self) -> np.ndarray:
        """Index of the class with the highest score, int [n]."""
        return self.scores.argmax(axis=1)

    def imagers(self) -> list[str]:
        """Returns the imagers by name."""
        return sorted(set(self.imager.tolist()))


def from_rows(rows: list[dict[str, Any]]) -> Table:
    """Makes a table of measured rows of `SCHEMA`, in the order of imager and name."""
    rows = sorted(rows, key=lambda row: (row["imager"], row["name"]))

    def column(name: str, kind: Any) -> np.ndarray:
        values = np.empty(len(rows), object)
        values[:] = [row[name] for row in rows]
        return values if kind is object else np.array(values.tolist(), kind).reshape(len(rows), -1 if rows else 0)

    return Table(
        imager=column("imager", object),
        name=column("name", object),
        statistics=column("statistics", np.float64) if rows else np.zeros((0, len(NAMES))),
        embedding=column("embedding", np.float32),
        scores=column("scores", np.float32),
        thumbnail=column("thumbnail", object),
    )


def write_table(table: Table, path: Path) -> None:
    """Writes a table as Parquet."""
    columns = {field.name: getattr(table, field.name).tolist() for field in dataclasses.fields(table)}
    content = pyarrow.Table.from_pydict({**columns, "reason": [""] * len(table)}, schema=SCHEMA)
    pyarrow.parquet.write_table(content, path)


def read_table(path: str) -> Table:
    """Reads what `write_table` wrote, from a path or a `gs://` URI; raises `InputError` for another table."""
    table = evaluations.read_parquet(store.read_bytes(path), path)
    message = f"{path} is not a table of measured images ({{}}); make the reference again"
    with errors.translated(errors.InputError, message, KeyError, TypeError, ValueError):
        return from_rows(table.to_pylist())
