"""When crystals came to a drop: what its pictures so far say together, beside each one's own score.

What a picture says is a logistic regression on its own log-odds of crystals, on the highest of the drop so far, and on
how it differs from the mean of the drop's earlier pictures: the network's features along the directions in which drops
change, and the logarithms of the probabilities. So what looked like crystals from the first day on, such as dust, may
count less than what has come since, and crystals that dissolve have come all the same. Pictures that look alike do not
add up, as they would in a hidden Markov chain, whose pictures are independent given its state: one drop that always
looks like crystals would then be surer than any whose crystals have just come.

The answer of a picture depends on it and on earlier ones alone. Of a drop's first picture it is that picture's own
probability. The regression is fitted to the training drops (`fit`), the threshold of an alarm to held-out ones
(`limited`).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marco_model import calibration, store

FILE = "assets.extra/time_course.npz"
"""The time course in an exported classifier's folder."""

FALSE_ALARMS = 0.01
"""Share of held-out drops whose alarm may come too early; half of what is promised, since there are few such drops."""

_COMPONENTS = 16
"""Directions of the features, at most."""
_LEAST = 1e-6
_RIDGES = (np.inf, 1.0, 0.1, 0.01)
"""Penalties on weights that say more than a picture's own log-odds, of which held-out drops choose; infinite: none do.

A network is surer of its training pictures than of any others: without a penalty on all weights, pictures that it tells
apart would make every answer 0 or 1, and no limit could tell drops apart."""


class Series(NamedTuple):
    """The pictures of one drop in the order of time.

    views: float [pictures, components], what `TimeCourse.project` makes of the network's features; for `fit` the
    features. scores: float [pictures, classes]. crystals: bool [pictures], whether crystals have come by then; empty if
    it is not known.
    """

    views: np.ndarray
    scores: np.ndarray
    crystals: np.ndarray = np.zeros(0, bool)


@dataclasses.dataclass(frozen=True)
class TimeCourse:
    """The regression of a model.

    classes: int [n], indices of those that mean crystals. temperature: of the model's probabilities. axes: float
    [features, components], directions of the features. weights: float [3 + components + classes], of one, of the
    log-odds, of the highest so far, and of the differences. thresholds: float [2], the probabilities from which
    on the first picture and a later one are an alarm.
    """

    classes: np.ndarray
    temperature: float
    axes: np.ndarray
    weights: np.ndarray
    thresholds: np.ndarray = dataclasses.field(default_factory=lambda: np.full(2, 0.5))

    def project(self, features: np.ndarray) -> np.ndarray:
        """Returns the part of features, float [pictures, features], that counts: float32 [pictures, components]."""
        return (features @ self.axes).astype(np.float32)

    def probabilities(self, series: Series) -> np.ndarray:
        """Returns, for each picture, the probability that crystals have come by then, float64 [pictures]."""
        inputs = _inputs(series, self)
        logits = np.concatenate([inputs[:1, 1], inputs[1:] @ self.weights])
        return np.exp(-np.logaddexp(0, -logits))

    def alarm(self, probabilities: np.ndarray) -> int | None:
        """Returns the first picture, from 0, whose probability is an alarm; None if none is."""
        (alarms,) = np.nonzero(probabilities >= self.thresholds[np.minimum(np.arange(len(probabilities)), 1)])
        return int(alarms[0]) if len(alarms) else None

    def to_bytes(self) -> bytes:
        """Returns the time course as an NPZ file."""
        return store.npz(vars(self), compressed=True)


def _inputs(drop: Series, course: TimeCourse) -> np.ndarray:
    """Returns what the regression takes of each picture, float64 [pictures, weights]."""
    probabilities = np.clip(calibration.calibrate(drop.scores, course.temperature).astype(np.float64), _LEAST, 1)
    crystals = np.clip(probabilities[:, course.classes].sum(axis=1), _LEAST, 1 - _LEAST)
    odds = np.log(crystals / (1 - crystals))
    views = np.hstack([drop.views, np.log(probabilities)])
    return np.column_stack([np.ones(len(odds)), odds, np.maximum.accumulate(odds), differences(views)])


def differences(views: np.ndarray) -> np.ndarray:
    """Returns how each picture's view differs from the mean of the earlier ones, [pictures, values]; the first is 0."""
    earlier = np.cumsum(views, axis=0)[:-1] / np.arange(1, len(views))[:, None]
    return np.vstack([np.zeros_like(views[:1]), views[1:] - earlier])


def fit(
    training: Sequence[Series], held_out: Sequence[Series], classes: Sequence[int], temperature: float
) -> TimeCourse:
    """Returns the time course of a model, fitted to the drops of its training, whose `crystals` are known.

    classes: indices of those that mean crystals. temperature: of the model's probabilities. Drops that were `held_out`
    choose the thresholds, and how strongly weights are penalized: so that most alarms come in time, if need be by the
    pictures' own log-odds alone.
    """
    axes = _directions(training)
    training, held_out = ([drop._replace(views=drop.views @ axes) for drop in drops] for drops in (training, held_out))
    start = TimeCourse(np.asarray(classes), temperature, axes, np.zeros(0))
    fitted = [limited(_fitted(training, start, ridge), held_out) for ridge in _RIDGES]
    return max(fitted, key=lambda course: alarms_in_time(course, held_out))


def alarms_in_time(course: TimeCourse, drops: Sequence[Series]) -> int:
    """Returns how many drops have their alarm with the first picture of crystals or the next."""
    timely = 0
    for series in drops:
        alarm, first = course.alarm(course.probabilities(series)), int(series.crystals.argmax())
        timely += bool(series.crystals.any()) and alarm is not None and 0 <= alarm - first <= 1
    return timely


def limited(course: TimeCourse, held_out: Sequence[Series], share: float = FALSE_ALARMS) -> TimeCourse:
    """Returns the time course with the lowest thresholds at which a share of drops, at most, has an alarm too early.

    Too early is before crystals have come, or if they never do. Half of the share is for first pictures. It is exact
    for further drops of the same kind, on the average over sets of held-out drops (split conformal prediction), down to
    two in their number plus 1.
    """
    highest = []
    for series in held_out:
        before = course.probabilities(series) * ~series.crystals
        highest.append((before[0], before[1:].max(initial=0)))
    return dataclasses.replace(course, thresholds=limit_above(np.array(highest), share / 2))


def limit_above(highest: np.ndarray, share: float) -> np.ndarray:
    """Returns the lowest limit that at most a share of further values is expected to reach, float64 [...].

    highest: float [values, ...], of held-out drops.
    """
    kept = min(len(highest), int(np.ceil((1 - share) * (len(highest) + 1))))
    return np.asarray(np.nextafter(np.sort(highest, axis=0)[kept - 1], 2))


def _directions(drops: Sequence[Series]) -> np.ndarray:
    """Returns the directions in which features change most within drops, in units of these changes."""
    changes = np.concatenate([differences(drop.views.astype(np.float64))[1:] for drop in drops])
    _, deviations, axes = np.linalg.svd(changes, full_matrices=False)
    kept = min(_COMPONENTS, int((deviations > 1e-6 * deviations[0]).sum()))
    return axes[:kept].T / (deviations[:kept] / np.sqrt(len(changes)))


def _fitted(drops: Sequence[Series], start: TimeCourse, ridge: float) -> TimeCourse:
    """Returns the regression of all pictures but the first ones, whose probability is not the regression's."""
    from scipy import optimize

    inputs = np.concatenate([_inputs(drop, start)[1:] for drop in drops])
    come = np.concatenate([drop.crystals[1:] for drop in drops])
    strength, own = ridge / inputs.shape[1], np.eye(inputs.shape[1])[1]
    if not np.isfinite(ridge):
        return dataclasses.replace(start, weights=own)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean cross-entropy with the penalty, and the gradient."""
        logits, excess = inputs @ weights, weights - own
        likely = np.exp(-np.logaddexp(0, -logits))
        entropy = float((np.logaddexp(0, logits) - come * logits).mean())
        gradient = inputs.T @ (likely - come) / len(come)
        return entropy + strength * float((excess**2).sum()), gradient + 2 * strength * excess

    weights = optimize.minimize(loss, own, jac=True, method="L-BFGS-B").x
    return dataclasses.replace(start, weights=weights)
