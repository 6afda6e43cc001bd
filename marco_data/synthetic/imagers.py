"""The five institutions' imagers: image size, view, camera and the file names they give.

Table I of Bruno et al. 2018 names institutions, set-ups and imagers. Sizes and name patterns beyond the two printed in
docs/data.md are ours and plausible, not those of the institutions.
"""

from __future__ import annotations

import dataclasses

from marco_data.institutions import FORMULATRIX, HWMRI_HOME, MINSTREL

_ROWS = "ABCDEFGH"


@dataclasses.dataclass(frozen=True)
class Imager:
    """A camera at an institution.

    `width` and `height` are pixels. `tight`, `grey` and `dark_ring` are the shares of images that see only a part of
    the drop, come from a monochrome camera, and show a well with an opaque rim. `setup` is `sitting drop` or `oil`;
    `saturation` scales the tint of the light; `share` is the imager's share of its institution's images.
    """

    name: str
    institution: str
    width: int
    height: int
    setup: str
    tight: float
    grey: float
    dark_ring: float
    saturation: float
    share: float = 1.0


IMAGERS: tuple[Imager, ...] = (
    Imager(FORMULATRIX, "Bristol-Myers Squibb", 1280, 960, "sitting drop", 0.35, 0.3, 0.4, 0.5),
    Imager(FORMULATRIX, "CSIRO", 1280, 1024, "sitting drop", 0.3, 0.1, 0.5, 0.7, 0.5),
    Imager(MINSTREL, "CSIRO", 1024, 768, "sitting drop", 0.2, 0.5, 0.2, 0.4, 0.5),
    Imager(HWMRI_HOME, "HWMRI", 632, 504, "oil", 0.15, 0.85, 0.0, 0.2),
    Imager(FORMULATRIX, "GlaxoSmithKline", 1280, 960, "sitting drop", 0.25, 0.0, 0.9, 1.0),
    Imager(FORMULATRIX, "Merck", 1224, 1024, "sitting drop", 0.35, 0.2, 0.3, 0.6),
)


def file_name(imager: Imager, plate: int, place: int, serial: int) -> str:
    """Returns the base name of the image of well `place` (0 … 95) of plate number `plate`.

    `serial` (0 … 999) varies the number of the inspection, or its date and time.
    """
    row, column = _ROWS[place // 12], place % 12 + 1
    if imager.name == HWMRI_HOME:
        month, day, hour, minute = serial % 12 + 1, serial % 28 + 1, serial % 24, serial * 7 % 60
        return f"X{plate % 10**9:09d}{place * 16 + 1:04d}2005{month:02d}{day:02d}{hour:02d}{minute:02d}.png"
    if imager.name == MINSTREL:
        return f"C{plate % 10**6:06d}-{row}{column:02d}a-20120{serial % 9 + 1}.jpg"
    return f"{plate % 16**5:04x}_{row}{column}_ImagerDefaults_{serial % 12 + 1}.jpg"
