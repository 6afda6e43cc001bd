"""The plan of a synthetic set: what image `index` shows, by which imager, in which split, without drawing it.

With `Settings.inspections` the images are those of drops over time. `Timeline` is one drop's course, drawn once; its
`moment` is what the picture of an inspection shows. Time counts in inspections, whose intervals double as in most
laboratories: most change comes early.
"""

import dataclasses
import datetime
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from marco_data.name_tables import FORMULATRIX, HWMRI_HOME, INSTITUTIONS, MINSTREL
from marco_model import errors, labels


class Kind(NamedTuple):
    """A kind of image of a class; `weight` is its share among the kinds of that class."""

    name: str
    label: str
    weight: float


KINDS: tuple[Kind, ...] = (
    Kind("clear drop", "Clear", 0.6),
    Kind("clear drop with dust", "Clear", 0.4),
    Kind("needles", "Crystals", 0.25),
    Kind("plates", "Crystals", 0.2),
    Kind("facetted blocks", "Crystals", 0.3),
    Kind("clusters", "Crystals", 0.25),
    Kind("phase separation", "Other", 0.72),
    Kind("dropless", "Other", 0.06),
    Kind("out of focus", "Other", 0.1),
    Kind("dark", "Other", 0.06),
    Kind("overexposed", "Other", 0.06),
    Kind("light precipitate", "Precipitate", 0.25),
    Kind("heavy precipitate", "Precipitate", 0.25),
    Kind("granular precipitate", "Precipitate", 0.3),
    Kind("film", "Precipitate", 0.2),
)


_ROWS = "ABCDEFGH"


@dataclasses.dataclass(frozen=True)
class Imager:
    """A camera at an institution.

    `width` and `height` are pixels. `tight`, `grey` and `dark_ring` are the shares of images that show only a part of
    the drop, are monochrome, and show a well with an opaque rim. `setup` is `sitting drop` or `oil`; `saturation`
    scales the tint of the light; `share` is the imager's share of its institution's images.
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
    """Returns the image's base name of well `place` (0 … 95); `serial` (0 … 999) varies the inspection or its date."""
    row, column = _ROWS[place // 12], place % 12 + 1
    if imager.name == HWMRI_HOME:
        month, day, hour, minute = serial % 12 + 1, serial % 28 + 1, serial % 24, serial * 7 % 60
        return f"X{plate % 10**9:09d}{place * 16 + 1:04d}2005{month:02d}{day:02d}{hour:02d}{minute:02d}.png"
    if imager.name == MINSTREL:
        return f"C{plate % 10**6:06d}-{row}{column:02d}a-20120{serial % 9 + 1}.jpg"
    return f"{plate % 16**5:04x}_{row}{column}_ImagerDefaults_{serial % 12 + 1}.jpg"


def inspection_file_name(imager: Imager, plate: int, place: int, inspection: int) -> str:
    """Returns the base name of the image of an inspection (0, 1, …) of well `place` (0 … 95) of plate number `plate`.

    Intervals between inspections double, from a day on, where names state a date.
    """
    row, column = place // 12, place % 12 + 1
    day = datetime.date(2012, 3, 1) + datetime.timedelta(days=2**inspection - 1)
    if imager.name == HWMRI_HOME:
        return f"X{plate % 10**9:09d}{place * 16 + 1:04d}{day:%Y%m%d}0900.png"
    if imager.name == MINSTREL:
        where = f"{inspection + 1:03d}_{day:%y%m%d}_{row + 1:02d}_{column:02d}_01"
        return f"DRAWN_01_001_ROBO_Drawn1_Drop1_CI_0000CI{plate % 10**6:06d}_{where}_HF_99_030_001_RDI.jpg"
    return f"{plate % 16**5:04x}_{_ROWS[row]}{column}_ImagerDefaults_{inspection + 1}.jpg"


# Default shares of institutions: CSIRO counts twice because it has two imagers.
INSTITUTION_SHARES: dict[str, float] = {name: 2.0 if name == "CSIRO" else 1.0 for name in INSTITUTIONS}

# Steps of the additive recurrence with the least discrepancy in three dimensions (Roberts 2018, "R3" sequence):
# powers of 1 / 1.2207…, the real root of x**4 = x + 1.
_STEPS = tuple(1.2207440846057596**-power for power in (1, 2, 3))


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


def draw_timeline(rng: np.random.Generator, inspections: int) -> Timeline:
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """All parameters of a synthetic set.

    seed: any non-negative integer.
    eval_share: share of images in the `test` shards, 0 … 1.
    shorter_side: pixels; 0 keeps each imager's full size.
    label_noise: share of images labelled with a class that they do not show, 0 … 1.
    institutions, classes: name → weight, normalized to shares; a missing name has weight 0.
    inspections: images of each drop, one after another, 1 … 12. From 2 on, courses decide the classes.

    Raises `InputError` for a value out of range or an unknown name.
    """

    seed: int = 0
    eval_share: float = 0.2
    shorter_side: int = 0
    label_noise: float = 0.0
    institutions: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(INSTITUTION_SHARES))
    classes: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(labels.CLASSES, 1.0))
    inspections: int = 1

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise errors.InputError(f"seed is {self.seed}; give 0 or more")
        for name in ("eval_share", "label_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise errors.InputError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")
        if self.shorter_side and self.shorter_side < 32:
            raise errors.InputError(f"shorter side is {self.shorter_side} pixels; give at least 32, or 0 for full size")
        if not 1 <= self.inspections <= MOST_INSPECTIONS:
            raise errors.InputError(f"inspections is {self.inspections}; give a number from 1 to {MOST_INSPECTIONS}")
        if self.inspections > 1 and len(set(self.classes.values())) > 1:
            raise errors.InputError("the shares of class are given, with inspections; the courses of drops decide them")
        for kind, shares, known in (
            ("institution", self.institutions, INSTITUTIONS),
            ("class", self.classes, labels.CLASSES),
        ):
            for name, share in shares.items():
                if name not in known:
                    raise errors.InputError(f"unknown {kind} {name!r}; known are {', '.join(known)}")
                if not share >= 0:
                    raise errors.InputError(f"the share of {kind} {name!r} is {share}; give 0 or more")
            if not sum(shares.values()) > 0:
                raise errors.InputError(f"the shares of {kind} add up to nothing; give at least one above 0")


@dataclasses.dataclass(frozen=True)
class Plan:
    """An image to draw: `shown` is the index of the class that it shows, `label` that of its label.

    `drop`: the number of the drop, `index` where each has one image. `inspection`: 0 for the first. `timeline`: the
    drop's course; None where each has one image.
    """

    index: int
    imager: Imager
    kind: int
    shown: int
    label: int
    split: str
    filename: str
    drop: int
    inspection: int = 0
    timeline: Timeline | None = None

    @property
    def noisy(self) -> bool:
        """Whether the label is another class than the one shown."""
        return self.label != self.shown


def generator(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Returns the random generator of an image for a purpose, independent of all others."""
    return np.random.default_rng([seed, index, zlib.crc32(purpose.encode())])


def plan(settings: Settings, index: int) -> Plan:
    """Returns the plan of image `index` (0, 1, …), which depends on `settings` and `index` only.

    Institution, class and split follow a low-discrepancy sequence, so that even a small set has every slice.
    """
    drop, inspection = divmod(index, settings.inspections)
    offsets = generator(settings.seed, 0, "offsets").random(3)
    at = [(offset + (drop + 1) * step) % 1.0 for offset, step in zip(offsets, _STEPS, strict=True)]
    rng = generator(settings.seed, index, "plan")
    number = _pick([settings.institutions.get(imager.institution, 0.0) * imager.share for imager in IMAGERS], at[0])
    imager = IMAGERS[number]
    timeline = None
    if settings.inspections > 1:
        timeline = draw_timeline(generator(settings.seed, drop, "course"), settings.inspections)
        kind = [kind.name for kind in KINDS].index(timeline.moment(inspection).kind)
        shown = labels.CLASSES.index(KINDS[kind].label)
    else:
        shown = _pick([settings.classes.get(name, 0.0) for name in labels.CLASSES], at[1])
        kinds = [number for number, kind in enumerate(KINDS) if kind.label == labels.CLASSES[shown]]
        weights = np.array([KINDS[number].weight for number in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    noisy = rng.random() < settings.label_noise
    label = int((shown + rng.integers(1, len(labels.CLASSES))) % len(labels.CLASSES)) if noisy else shown
    plate = int(generator(settings.seed, 0, "plates").integers(2**15)) + drop // 96 * len(IMAGERS) + number
    if timeline:
        filename = inspection_file_name(imager, plate, drop % 96, inspection)
    else:
        filename = file_name(imager, plate, drop % 96, int(rng.integers(1000)))
    split = "test" if at[2] < settings.eval_share else "train"
    return Plan(index, imager, kind, shown, label, split, filename, drop, inspection, timeline)


def _pick(shares: Sequence[float], at: float) -> int:
    """Returns the number of the share whose part of 0 … 1 contains `at`."""
    bounds = np.cumsum(shares)
    return int(np.searchsorted(bounds / bounds[-1], at, side="right"))
