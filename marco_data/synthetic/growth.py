"""Courses of drops over their inspections: when crystals nucleate, grow and dissolve, and what else fills the drop.

`Timeline` is one drop's course, drawn once; its `moment` is what the picture of an inspection shows. Time counts in
inspections, whose intervals double as in most laboratories: most change comes early.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

VISIBLE = 0.3
"""Size of crystals, of 1 when grown, from which a picture shows them; also the amount of other matter."""
MOST_INSPECTIONS = 12

CLEAR = ("clear drop", "clear drop with dust")
CRYSTALS = ("needles", "plates", "facetted blocks", "clusters")
PRECIPITATES = ("light precipitate", "heavy precipitate", "granular precipitate")
UNJUDGED = ("out of focus", "dark")
"""What the imager makes of a picture now and then, whatever the drop holds."""
_UNJUDGED_SHARE = 0.03


class Course(NamedTuple):
    """A course and its share of the drops; `matter`: kinds of which one fills the drop, at some time."""

    name: str
    share: float
    matter: tuple[str, ...] = ()
    crystals: bool = False


COURSES = (
    Course("stays clear", 0.2),
    Course("precipitates", 0.15, PRECIPITATES),
    Course("separates", 0.1, ("phase separation",)),
    Course("skin", 0.1, ("film",)),
    Course("crystals", 0.2, crystals=True),
    Course("crystals dissolve", 0.1, crystals=True),
    Course("precipitate turns crystal", 0.1, PRECIPITATES, crystals=True),
    Course("skin over crystals", 0.05, ("film",), crystals=True),
)


class Moment(NamedTuple):
    """What the picture of an inspection shows.

    kind: the name of its kind in `plan.KINDS`, by which it is labelled. size: of the crystals, 0 without any to 1 when
    grown. amount: of other matter, 0 to 1.
    """

    kind: str
    size: float
    amount: float


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The course of a drop. Times count from the first inspection, which is 0, and are infinite for what never comes.

    clear, matter, crystal: the kinds that are drawn. nucleation, dissolving: of crystals. onset: of other matter.
    growth, spreading: how long crystals and other matter take to come, to 63 % and wholly. unjudged: the kind of the
    picture of each inspection that the imager spoils, else empty.
    """

    course: Course
    clear: str
    matter: str
    crystal: str
    nucleation: float
    growth: float
    dissolving: float
    onset: float
    spreading: float
    unjudged: tuple[str, ...]

    def moment(self, inspection: int) -> Moment:
        """Returns what the picture of an inspection (0, 1, …) shows."""
        size = 1 - float(np.exp(-max(inspection - self.nucleation, 0) / self.growth))
        size *= float(np.exp(-max(inspection - self.dissolving, 0) / 0.4))
        amount = float(np.clip((inspection - self.onset) / self.spreading, 0, 1))
        if self.course.name == "precipitate turns crystal":
            amount *= 1 - 0.7 * size
        matter = self.matter if amount >= VISIBLE else self.clear
        shown = self.crystal if size >= VISIBLE else matter
        return Moment(self.unjudged[inspection] or shown, size, amount)

    @property
    def first_crystals(self) -> int | None:
        """The first inspection whose picture shows crystals; None if no picture does."""
        kinds = (self.moment(inspection).kind for inspection in range(len(self.unjudged)))
        return next((inspection for inspection, kind in enumerate(kinds) if kind in CRYSTALS), None)


def timeline(rng: np.random.Generator, inspections: int) -> Timeline:
    """Returns the course of a drop over so many inspections."""
    course = COURSES[int(rng.choice(len(COURSES), p=[course.share for course in COURSES]))]
    nucleation = float(rng.uniform(-0.5, inspections - 1)) if course.crystals else np.inf
    dissolving = nucleation + float(rng.uniform(1, 3)) if course.name == "crystals dissolve" else np.inf
    onset = float(rng.uniform(-1.5, inspections - 1))
    if course.name == "precipitate turns crystal":
        onset = -1.0
    elif course.name == "skin over crystals":
        onset = nucleation + float(rng.uniform(0.5, 2))
    spoiled = rng.random(inspections) < _UNJUDGED_SHARE
    return Timeline(
        course=course,
        clear=str(rng.choice(CLEAR)),
        matter=str(rng.choice(course.matter)) if course.matter else "",
        crystal=str(rng.choice(CRYSTALS)),
        nucleation=nucleation,
        growth=float(np.exp(rng.uniform(np.log(0.05), np.log(0.3)))),
        dissolving=dissolving,
        onset=onset if course.matter else np.inf,
        spreading=float(rng.uniform(0.3, 1)),
        unjudged=tuple(str(rng.choice(UNJUDGED)) if bad else "" for bad in spoiled),
    )
