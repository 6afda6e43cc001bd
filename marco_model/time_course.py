"""When crystals came to a drop: what its pictures so far say together, beside each one's own score.

A drop's state at an inspection is one of three: no crystals yet, crystals, crystals gone again. From one inspection to
the next they come and go at rates (a hidden Markov chain). What a picture says for crystals is linear in its own
log-odds, and in how it differs from the mean of the drop's earlier pictures: the network's features along the
directions in which drops change, and the logarithms of the probabilities. So what looked like crystals from the first
day on, such as dust, counts less than what has come since.

The answer is the forward filter of the chain, the probability that crystals have come by now given the pictures so far;
later pictures do not enter. Of a single picture it is that picture's own probability. The chain is fitted to the
training drops (`fit`), and the threshold of an alarm to held-out ones (`limited`).
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marco_model import calibration, errors

FILE = "assets.extra/time_course.npz"
"""The time course in an exported classifier's folder."""

FALSE_ALARMS = 0.01
"""Share of held-out drops whose alarm may come too early; half of what is promised, since there are few such drops."""

_COMPONENTS = 16
"""Directions of the features, at most."""
_LEAST = 1e-6
_MOST_EVIDENCE = 20.0
_RIDGES = (0.003, 0.03, 0.3)
"""Penalties on the weights of differences, of which held-out drops choose."""


class Series(NamedTuple):
    """The pictures of one drop in the order of time.

    views: float [pictures, components], what `TimeCourse.project` makes of the network's features; for `fit` the
    features. scores: float [pictures, classes]. times: int [pictures], strictly rising numbers of their inspections.
    crystals: bool [pictures], whether crystals have come by then; empty if it is not known.
    """

    views: np.ndarray
    scores: np.ndarray
    times: np.ndarray
    crystals: np.ndarray = np.zeros(0, bool)


@dataclasses.dataclass(frozen=True)
class TimeCourse:
    """The chain of a model.

    classes: int [n], indices of those that mean crystals. temperature: of the model's probabilities. axes: float
    [features, components], directions of the features. weights: float [2 + components + classes], of one, of the
    log-odds, and of the differences. rates: float [2], of nucleation and of dissolving between two inspections.
    threshold: the probability from which on it is an alarm.
    """

    classes: np.ndarray
    temperature: float
    axes: np.ndarray
    weights: np.ndarray
    rates: np.ndarray
    threshold: float = 0.5

    def project(self, features: np.ndarray) -> np.ndarray:
        """Returns the part of features, float [pictures, features], that counts: float32 [pictures, components]."""
        return (features @ self.axes).astype(np.float32)

    def probabilities(self, series: Series) -> np.ndarray:
        """Returns, for each picture, the probability that crystals have come by then, float64 [pictures]."""
        return _filtered(_batch([series], self), self.weights, self.rates)[0]

    def alarm(self, probabilities: np.ndarray) -> int | None:
        """Returns the first picture, from 0, whose probability is an alarm; None if there is ndrop."""
        (alarms,) = np.nonzero(probabilities >= self.threshold)
        return int(alarms[0]) if len(alarms) else None

    def to_bytes(self) -> bytes:
        """Returns the time course as an NPZ file."""
        content = io.BytesIO()
        np.savez_compressed(content, **{name: np.asarray(value) for name, value in vars(self).items()})  # type: ignore[arg-type]
        return content.getvalue()


def read(content: bytes, name: str) -> TimeCourse:
    """Returns the time course in an NPZ file; raises `InputError` that calls the file `name` if it is damaged."""
    with errors.translated(errors.InputError, f"{name} is damaged ({{}}); export the model again", Exception):
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            values = {field.name: arrays[field.name] for field in dataclasses.fields(TimeCourse)}
        temperature, threshold = float(values.pop("temperature")), float(values.pop("threshold"))
        return TimeCourse(**values, temperature=temperature, threshold=threshold)


class _Batch(NamedTuple):
    """Series of several drops, filled up to the longest.

    first: float64 [drops], probability of crystals in the first picture. inputs: float64 [drops, pictures, weights],
    of which evidence is linear. steps: int [drops, pictures], inspections since the picture before. taken: bool [drops,
    pictures].
    """

    first: np.ndarray
    inputs: np.ndarray
    steps: np.ndarray
    taken: np.ndarray


def _batch(drops: Sequence[Series], course: TimeCourse) -> _Batch:
    longest = max(len(drop.times) for drop in drops)
    taken = np.array([np.arange(longest) < len(drop.times) for drop in drops])
    inputs = np.zeros((len(drops), longest, 2 + course.axes.shape[1] + drops[0].scores.shape[1]))
    steps = np.ones((len(drops), longest), int)
    first = np.zeros(len(drops))
    for number, drop in enumerate(drops):
        probabilities = np.clip(calibration.calibrate(drop.scores, course.temperature).astype(np.float64), _LEAST, 1)
        crystals = np.clip(probabilities[:, course.classes].sum(axis=1), _LEAST, 1 - _LEAST)
        views = np.hstack([drop.views, np.log(probabilities)])
        first[number] = crystals[0]
        count = len(views)
        inputs[number, :count, 0] = 1
        inputs[number, :count, 1] = np.log(crystals / (1 - crystals))
        inputs[number, :count, 2:] = differences(views)
        steps[number, 1:count] = np.diff(drop.times)
    return _Batch(first, inputs, steps, taken)


def differences(views: np.ndarray) -> np.ndarray:
    """Returns how each picture's view differs from the mean of the earlier ones, [pictures, values]; the first is 0."""
    earlier = np.cumsum(views, axis=0)[:-1] / np.arange(1, len(views))[:, None]
    return np.vstack([np.zeros_like(views[:1]), views[1:] - earlier])


def _filtered(batch: _Batch, weights: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Returns the probability that crystals have come by each picture, float64 [drops, pictures]."""
    nucleation, dissolving = rates
    chain = np.array([[1 - nucleation, nucleation, 0], [0, 1 - dissolving, dissolving], [0, 0, 1]])
    powers = [np.linalg.matrix_power(chain, step) for step in range(int(batch.steps.max()) + 1)]
    moves = np.array(powers)[batch.steps]
    likelihoods = np.exp(np.clip(batch.inputs @ weights, -_MOST_EVIDENCE, _MOST_EVIDENCE))
    states = np.stack([1 - batch.first, batch.first, np.zeros_like(batch.first)], axis=1)
    come = [batch.first]
    for time in range(1, batch.taken.shape[1]):
        states = np.einsum("di,dij->dj", states, moves[:, time])
        states[:, 1] *= likelihoods[:, time]
        states /= states.sum(axis=1, keepdims=True)
        come.append(1 - states[:, 0])
    return np.stack(come, axis=1)


def fit(
    training: Sequence[Series], held_out: Sequence[Series], classes: Sequence[int], temperature: float
) -> TimeCourse:
    """Returns the time course of a model, fitted to the drops of its training, whose `crystals` are known.

    classes: indices of those that mean crystals. temperature: of the model's probabilities. Drops that were `held_out`
    choose how strongly weights are penalized, and the threshold.
    """
    axes = _directions(training)
    training, held_out = ([drop._replace(views=drop.views @ axes) for drop in drops] for drops in (training, held_out))
    start = TimeCourse(np.asarray(classes), temperature, axes, np.zeros(0), np.zeros(2))
    fitted = [_fitted(training, start, ridge) for ridge in _RIDGES]
    best = min(
        fitted, key=lambda course: _loss(_batch(held_out, course), _targets(held_out), course.weights, course.rates)
    )
    return limited(best, held_out)


def limited(course: TimeCourse, held_out: Sequence[Series], share: float = FALSE_ALARMS) -> TimeCourse:
    """Returns the time course with the lowest threshold at which a share of drops, at most, has an alarm too early.

    Too early is before crystals have come, or if they never do. It is exact for further drops of the same kind, on the
    average over sets of held-out drops (split conformal prediction), down to one in their number plus 1.
    """
    highest = []
    for series in held_out:
        before = course.probabilities(series)[~series.crystals]
        highest.append(float(before.max()) if len(before) else 0.0)
    kept = min(len(highest), int(np.ceil((1 - share) * (len(highest) + 1))))
    threshold = float(np.nextafter(np.sort(highest)[kept - 1], 2))
    return dataclasses.replace(course, threshold=threshold)


def _targets(drops: Sequence[Series]) -> np.ndarray:
    """Returns whether crystals have come by each picture, bool [drops, pictures]."""
    targets = np.zeros((len(drops), max(len(drop.times) for drop in drops)), bool)
    for number, drop in enumerate(drops):
        targets[number, : len(drop.times)] = drop.crystals
    return targets


def _directions(drops: Sequence[Series]) -> np.ndarray:
    """Returns the directions in which features change most within drops, in units of these changes."""
    changes = np.concatenate([differences(drop.views.astype(np.float64))[1:] for drop in drops])
    _, deviations, axes = np.linalg.svd(changes, full_matrices=False)
    kept = min(_COMPONENTS, int((deviations > 1e-6 * deviations[0]).sum()))
    return axes[:kept].T / (deviations[:kept] / np.sqrt(len(changes)))


def _loss(batch: _Batch, targets: np.ndarray, weights: np.ndarray, rates: np.ndarray) -> float:
    """Returns the mean cross-entropy of all pictures but the first ones, whose probability is not the chain's."""
    come = np.clip(_filtered(batch, weights, rates), _LEAST, 1 - _LEAST)
    losses = -np.log(np.where(targets, come, 1 - come))
    return float(losses[:, 1:][batch.taken[:, 1:]].mean())


def _fitted(drops: Sequence[Series], start: TimeCourse, ridge: float) -> TimeCourse:
    from scipy import optimize, special

    batch, targets = _batch(drops, start), _targets(drops)
    count = batch.inputs.shape[2]

    def loss(values: np.ndarray) -> float:
        weights, rates = values[:count], special.expit(values[count:])
        return _loss(batch, targets, weights, rates) + ridge * float(np.square(weights[2:]).mean())

    first = np.concatenate([[0.0, 1.0], np.zeros(count - 2), special.logit([0.1, 0.05])])
    values = optimize.minimize(loss, first, method="L-BFGS-B", options={"maxiter": 200, "maxfun": 20_000}).x
    return dataclasses.replace(start, weights=values[:count], rates=special.expit(values[count:]))
