"""Puts scored images onto their plates and into the order of time."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from marco_data.file_names import DropPlace, Taken, drop_place, taken
from pipelines.plate_report.collector import ScoredImage
from pipelines.plate_report.layout import Format, Position, plate_format, position, well_name
from pipelines.plate_report.time_points import TimePoint, new_hits, time_points


@dataclasses.dataclass(frozen=True)
class Plate:
    """A plate that file names tell of; `drops` are the names of the drops that its wells have, in their order."""

    name: str
    format: Format
    drops: list[str]
    times: list[TimePoint]


@dataclasses.dataclass
class Placed:
    """A scored image and where it belongs.

    `plate`: index into the plates; None, as `position`, where its name tells no well of one. `time`: index into the
    plate's time points. `hit`: the class with the highest score is a crystal class. `new`: it is the first hit of its
    drop, at the plate's last time point.
    """

    image: ScoredImage
    place: DropPlace
    taken: Taken
    hit: bool
    position: Position | None = None
    plate: int | None = None
    time: int = 0
    new: bool = False

    @property
    def well(self) -> str:
        """The well as people say it: `G6`, or HWMRI's number; empty if there is none."""
        if self.position is None:
            return ""
        return self.place.well if self.place.well.isdigit() else well_name(self.position)


def place_images(images: Sequence[ScoredImage], crystals: Sequence[int]) -> tuple[list[Plate], list[Placed]]:
    """Returns the plates, by name, and all images, in the order given, each with its place and its time."""
    placed = [_placed(image, crystals) for image in images]
    by_plate: dict[str, list[Placed]] = defaultdict(list)
    for one in placed:
        if one.position is not None:
            by_plate[one.place.plate].append(one)
    plates = []
    for index, name in enumerate(sorted(by_plate)):
        members = by_plate[name]
        times, of_each = time_points([(_drop(one), one.taken) for one in members])
        for one, time in zip(members, of_each, strict=True):
            one.plate, one.time = index, time
        hits = [(_drop(one), one.time, one.hit) for one in members]
        for one, new in zip(members, new_hits(hits, len(times) - 1), strict=True):
            one.new = new
        positions = {one.position for one in members if one.position is not None}
        drops = sorted({one.place.drop for one in members}, key=lambda drop: (len(drop), drop))
        plates.append(Plate(name, plate_format(positions), drops, times))
    return plates, placed


def _placed(image: ScoredImage, crystals: Sequence[int]) -> Placed:
    place = drop_place(image.path.name)
    hit = int(image.scores.argmax()) in crystals
    return Placed(image, place, taken(image.path.name), hit, position(place.well))


def _drop(one: Placed) -> tuple[Position | None, str]:
    return one.position, one.place.drop
