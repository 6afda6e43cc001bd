"""How well a model's time course tells when crystals came to synthetic drops, beside the scores of single pictures.

    python -m benchmarks.time_course --model runs/growth/models/1

Drops of six inspections that no training saw are drawn and scored. Right is a drop whose alarm is within one picture of
its first with crystals, or that has none of both; early is one with an alarm before the first crystals nucleate.
The single pictures are judged by their class, and by a limit of the crystal score that is chosen on `--held-out` more
drops as the time course's is. All of it again with a third of the pictures left out, and with one picture of each drop.
Ours is the share right of the time course with all pictures, the peer that of scores at their limit.

Without `--model` it is the published classifier, to which a time course is fitted on `--fit` further drops.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import benchmarks
from components import significance
from marco_data import places, synthetic
from marco_model import load, model_directory, time_course
from marco_scoring import plates

BATCH = 64


class Drop(NamedTuple):
    """A drop's pictures.

    Of each picture, scores: of crystals. hits: whether it is classed as crystals. shown: whether it shows crystals.
    come: whether they have nucleated by then, if too small to be seen.
    """

    pictures: list[plates.ScoredPicture]
    scores: np.ndarray
    hits: np.ndarray
    shown: np.ndarray
    come: np.ndarray

    @property
    def first(self) -> int | None:
        """The number of the first picture with crystals."""
        return first_true(self.shown)

    def part(self, kept: np.ndarray) -> "Drop":
        """Returns the drop with the pictures `kept` alone."""
        pictures = [self.pictures[number] for number in kept]
        return Drop(pictures, *(values[kept] for values in (self.scores, self.hits, self.shown, self.come)))


Alarm = Callable[[Drop], int | None]


def draw(classifier: load.LoadedClassifier, count: int, settings: synthetic.Settings) -> list[Drop]:
    """Draws and scores `count` drops; without a time course pictures keep all features of the network."""
    crystals = plates.crystal_classes(classifier.classes)
    drawn = benchmarks.draw(count * settings.inspections, settings)
    scored = []
    for batch in benchmarks.batches(drawn, BATCH):
        scores, _, views = classifier.described([jpeg for jpeg, _ in batch])
        for (_, plan), score, view in zip(batch, scores, views, strict=True):
            scored.append(plates.ScoredPicture(Path(plan.filename), places.place_of(plan.filename), score, view))
    drops = []
    for start, pictures in enumerate(benchmarks.batches(scored, settings.inspections)):
        plans = [plan for _, plan in drawn[start * settings.inspections :][: settings.inspections]]
        scores = np.stack([picture.scores for picture in pictures])
        hits, shown = (
            np.isin(classes, crystals) for classes in (scores.argmax(axis=1), [plan.shown for plan in plans])
        )
        come = np.array([plan.timeline.nucleation < plan.inspection for plan in plans if plan.timeline])
        drops.append(Drop(pictures, plates.crystal_score(scores, crystals), hits, shown, come))
    return drops


def first_true(values: np.ndarray) -> int | None:
    """Returns the number of the first true value."""
    return int(values.argmax()) if values.any() else None


def series(drop: Drop) -> time_course.Series:
    """Returns what a time course is fitted to."""
    views, scores = (np.stack([getattr(picture, name) for picture in drop.pictures]) for name in ("views", "scores"))
    return time_course.Series(views, scores, np.logical_or.accumulate(drop.shown))


def projected(course: time_course.TimeCourse, drop: Drop) -> Drop:
    """Returns the drop with what the time course takes in place of all features."""
    pictures = [picture._replace(views=course.project(picture.views)) for picture in drop.pictures]
    return drop._replace(pictures=pictures)


def by_course(course: time_course.TimeCourse, drop: Drop) -> int | None:
    """Returns the first picture by which the drop's row in a table says since when there are crystals."""
    answers = plates.course_answers(course, drop.pictures)
    return first_true(np.array([bool(answers[picture.path].since) for picture in drop.pictures]))


def limit_of(drops: Sequence[Drop]) -> float:
    """Returns the crystal score at which as few drops have an early alarm as `time_course.limited` allows."""
    highest = [drop.scores[~np.logical_or.accumulate(drop.shown)].max(initial=0) for drop in drops]
    return float(time_course.limit_above(np.array(highest), time_course.FALSE_ALARMS))


def judge(drops: Sequence[Drop], alarm: Alarm) -> tuple[int, int, int, int]:
    """Returns how many drops are right, are early, are right and have crystals, and have crystals."""
    alarms = [alarm(drop) for drop in drops]
    pairs = [(found, drop.first) for found, drop in zip(alarms, drops, strict=True)]
    early = sum(found is not None and not drop.come[found] for found, drop in zip(alarms, drops, strict=True))
    with_crystals = [found is not None and abs(found - first) <= 1 for found, first in pairs if first is not None]
    without = sum(found is None for found, first in pairs if first is None)
    return sum(with_crystals) + without, early, sum(with_crystals), len(with_crystals)


def share(count: int, whole: int) -> str:
    """Returns a share in per cent with its interval at 95 % (Wilson)."""
    low, high = significance.share_interval(count, whole)
    return f"{count / whole:6.1%} ({low:.1%} to {high:.1%})"


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, as shares."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--model", help="a model with a time course, trained on synthetic drops")
    parser.add_argument("--drops", type=int, default=500)
    parser.add_argument("--held-out", type=int, default=120, help="drops that set the limit of single scores")
    parser.add_argument("--fit", type=int, default=150, help="drops that a time course is fitted to")
    parser.add_argument("--inspections", type=int, default=6)
    parser.add_argument("--shorter-side", type=int, default=240, help="of the pictures, as in the preset local")
    parser.add_argument("--seed", type=int, default=77, help="of drops that the training did not see")
    options = parser.parse_args(arguments)
    classifier = load.open_classifier(options.model or model_directory.published_directory())
    course = classifier.time_course
    counts = (options.drops, options.held_out, 0 if course else options.fit)
    settings = {"shorter_side": options.shorter_side, "inspections": options.inspections}
    drops, held_out, training = (
        draw(classifier, count, synthetic.Settings(seed=options.seed + number, **settings))
        for number, count in enumerate(counts)
    )
    if course is None:
        fitted_to, limited_by = ([series(drop) for drop in part] for part in (training, held_out))
        crystals = plates.crystal_classes(classifier.classes)
        course = time_course.fit(fitted_to, limited_by, crystals, classifier.temperature)
        drops = [projected(course, drop) for drop in drops]
    limit = limit_of(held_out)
    alarms: dict[str, Alarm] = {
        "time course": functools.partial(by_course, course),
        "class of each picture": lambda drop: first_true(drop.hits),
        "score above a limit": lambda drop: first_true(drop.scores >= limit),
    }
    rng = np.random.default_rng(options.seed)
    kept = [np.sort(rng.permutation(options.inspections)[: max(1, options.inspections * 2 // 3)]) for _ in drops]
    single = [rng.integers(0, options.inspections, 1) for _ in drops]
    views = {
        "all pictures": drops,
        "a third left out": [drop.part(numbers) for drop, numbers in zip(drops, kept, strict=True)],
        "one picture": [drop.part(numbers) for drop, numbers in zip(drops, single, strict=True)],
    }
    right: dict[tuple[str, str], int] = {}
    for view, seen in views.items():
        for name, alarm in alarms.items():
            count, early, timely, come = judge(seen, alarm)
            right[view, name] = count
            benchmarks.note(
                f"{view:17} {name:22} right {share(count, len(seen))}, of {come} with crystals {share(timely, come)}, "
                f"early {share(early, len(seen))}"
            )
    ours, peer = (right["all pictures", name] / len(drops) for name in ("time course", "score above a limit"))
    benchmarks.report(ours, peer, "share right")


if __name__ == "__main__":
    main()
