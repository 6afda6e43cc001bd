"""How far a picture is from those that a model was trained on: what neither a score nor a probability tells.

A softmax must choose a class, so an all-black picture is a Crystals of 0.84 to a classifier that never saw one. Each
exported model therefore carries a `Reference`: what its training pictures looked like, in three views.

- The features that its last layer classifies: per class a mean, and a covariance that the classes share, whose
  Mahalanobis distance to the nearest class is a measure (Lee et al. 2018, arXiv:1807.03888). Features are many and
  pictures few, so the covariance is that of probabilistic principal components: the leading ones, and one variance for
  all others (Tipping and Bishop 1999).
- Some statistics of the pixels, such as brightness, colour and sharpness at several scales, since a network learns to
  look past these. Each imager has its own, so the distance is to the nearest training pictures (Sun et al. 2022,
  arXiv:2204.06507), along the principal axes of the statistics in units of the deviations along them.
- How many times less fine detail a picture has than its coarse contrast predicts, since a picture out of focus lies
  near pictures of little contrast: the strongest differences between neighbouring pixels, of which the mean and the
  strongest differences at 8 pixels predict the logarithm, by least squares over the training pictures.

The novelty of a picture is the largest of these, each divided by its limit: together the limits keep a share of
held-out pictures. So 1 is the limit, whatever the model.
"""

import dataclasses

import numpy as np

from marco_model import errors, store

FILE = "assets.extra/novelty.npz"
"""The reference in an exported classifier's folder."""

KEPT = 0.99
"""Share of held-out pictures that are below the limit."""
ENOUGH_PICTURES = 50
"""With fewer, in training or held out, a model gets no reference."""

_COMPONENTS = 64
"""Leading principal components of the features, at most; a quarter of the pictures is the other bound."""
_LOST_BY = (0.1, 0.7, 0.2)
"""Shares of what the limits lose that features, picture statistics and blur lose; features tell least."""
_TINY = 1e-12
"""Variance of features that are all alike."""
_NEIGHBOURS = 5
_LEAST_VARIANCE = 0.1
"""Added to the variances along the axes of the statistics, which are 1 on average: the last axes are noise."""
_SCALES = (1, 2, 4, 8)
"""Distances in pixels of the network's input at which sharpness is measured."""
_FINEST, _COARSEST = 1 - 2 * len(_SCALES), [-2, -1]
"""Places in the statistics: of the strongest differences at 1 pixel, and of mean and strongest ones at 8."""
_LINES = 100
"""How many columns and rows of a picture are looked at, or up to twice as many; neighbours say much the same."""
_LEAST = 1e-3
"""Added to brightness differences before their logarithm: half a grey level of 256."""


def picture_statistics(network_input: np.ndarray) -> np.ndarray:
    """Returns statistics of a network's input, float32 [3, size, size] in [-1, 1]: float32 [statistics].

    Mean and deviation of each colour, the mean difference between the strongest and the weakest colour, the darkest and
    brightest hundredth, and the logarithms of the mean and of the largest hundredth of differences between pixels that
    are 1, 2, 4 and 8 apart, along columns or along rows, whichever are smaller: a smeared picture is sharp across.
    """
    step = max(1, network_input.shape[2] // _LINES)
    columns, rows = network_input[:, :, ::step], network_input[:, ::step]
    coarse = np.ascontiguousarray(columns[:, ::2])
    grey = columns.mean(axis=0)
    saturation = (coarse.max(axis=0) - coarse.min(axis=0)).mean()
    sharpness = np.minimum(_sharpness(grey), _sharpness(rows.mean(axis=0).T))
    colours = coarse.mean(axis=(1, 2)), coarse.std(axis=(1, 2))
    return np.concatenate([*colours, [saturation], np.quantile(grey, [0.01, 0.99]), sharpness]).astype(np.float32)


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """Returns the logarithms of mean and largest differences along the first axis, by scale: float [2 * scales]."""
    differences = [np.abs(grey[scale:] - grey[:-scale]) for scale in _SCALES]
    return np.log([part for d in differences for part in (d.mean() + _LEAST, np.quantile(d[::2], 0.99) + _LEAST)])


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the training pictures of a model looked like, and how far held-out ones are from them.

    means: float32 [classes, features]; of features less than their mean over all classes.
    centre: float32 [features], that mean.
    components: float32 [features, components], principal axes divided by the deviations along them.
    rest: the deviation along every other axis, in units of features.
    statistics: float32 [pictures, statistics], of training pictures, less their mean and along the axes.
    location: float32 [statistics], that mean.
    axes: float32 [statistics, statistics], principal axes divided by the deviations along them, as columns.
    detail: float32 [3], weights of mean and strongest differences at 8 pixels and a constant, which predict the finest.
    limits: float32 [3], of features, statistics and blur, which a share of the held-out pictures stays under in all.
    """

    means: np.ndarray
    centre: np.ndarray
    components: np.ndarray
    rest: float
    statistics: np.ndarray
    location: np.ndarray
    axes: np.ndarray
    detail: np.ndarray
    limits: np.ndarray

    def novelty(self, features: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """Returns how far pictures are from the training pictures, float32 [pictures]: above 1 they are unknown.

        features: float [pictures, features]. statistics: float [pictures, statistics], as `picture_statistics` gives.
        """
        return (self.measures(features, statistics) / self.limits).max(axis=1).astype(np.float32)

    def measures(self, features: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """Returns what `limits` are limits of, float64 [pictures, 3]."""
        distances = self.feature_distances(features), self.picture_distances(statistics)
        return np.stack([*distances, self.blur(statistics)], axis=1)

    def feature_distances(self, features: np.ndarray) -> np.ndarray:
        """Returns Mahalanobis distances to the nearest class, per feature: float64 [pictures]."""
        offsets = (np.asarray(features, np.float64) - self.centre)[:, None, :] - self.means
        along = offsets @ self.components
        axes = self.components * np.square(1 / np.linalg.norm(self.components, axis=0))
        others = offsets - along @ axes.T
        squares = np.square(along).sum(axis=2) + np.square(others).sum(axis=2) / self.rest**2
        return np.sqrt(squares.min(axis=1) / features.shape[1])

    def picture_distances(self, statistics: np.ndarray) -> np.ndarray:
        """Returns the mean distances to the nearest training pictures, per axis: float64 [pictures]."""
        along = (np.asarray(statistics, np.float64) - self.location) @ self.axes
        squares = np.square(along[:, None, :] - self.statistics).mean(axis=2)
        nearest = min(_NEIGHBOURS, len(self.statistics))
        return np.sqrt(np.partition(squares, nearest - 1, axis=1)[:, :nearest]).mean(axis=1)

    def blur(self, statistics: np.ndarray) -> np.ndarray:
        """Returns how many times less fine detail pictures have than their contrast predicts: float64 [pictures]."""
        return np.exp(_contrast(statistics) @ self.detail - np.asarray(statistics, np.float64)[:, _FINEST])

    def to_bytes(self) -> bytes:
        """Returns the reference as an NPZ file."""
        values = {name: np.asarray(value, np.float32) for name, value in vars(self).items()}
        return store.npz(values, compressed=True)


def _contrast(statistics: np.ndarray) -> np.ndarray:
    """Returns what predicts the fine detail of pictures: mean and strongest differences at 8 pixels, and 1."""
    return np.insert(np.asarray(statistics, np.float64)[:, _COARSEST], 2, 1, axis=1)


def fit(features: np.ndarray, statistics: np.ndarray, labels: np.ndarray) -> Reference:
    """Returns the reference of training pictures, whose limits are 1: see `limited`.

    features: float [pictures, features]. statistics: float [pictures, statistics]. labels: int [pictures].
    """
    features, statistics = np.asarray(features, np.float64), np.asarray(statistics, np.float64)
    centre = features.mean(axis=0)
    means = np.stack([features[labels == label].mean(axis=0) - centre for label in np.unique(labels)])
    within = features - centre - means[np.searchsorted(np.unique(labels), labels)]
    _, deviations, axes = np.linalg.svd(within, full_matrices=False)
    variances = np.maximum(deviations**2 / len(features), _TINY)
    kept = max(1, min(_COMPONENTS, len(features) // 4, int((variances > 1e-6 * variances[0]).sum())))
    left = max(1, features.shape[1] - kept)
    rest = float(np.sqrt(max(variances[kept:].sum() / left, 1e-6 * variances[0])))
    components = axes[:kept].T / np.sqrt(variances[:kept])
    location, scale = statistics.mean(axis=0), np.maximum(statistics.std(axis=0), 1e-3)
    _, deviations, axes = np.linalg.svd((statistics - location) / scale, full_matrices=False)
    axes = axes.T / scale[:, None] / np.sqrt(deviations**2 / len(statistics) + _LEAST_VARIANCE)
    detail, *_ = np.linalg.lstsq(_contrast(statistics), statistics[:, _FINEST], rcond=None)
    return Reference(
        means=means.astype(np.float32),
        centre=centre.astype(np.float32),
        components=components.astype(np.float32),
        rest=rest,
        statistics=((statistics - location) @ axes).astype(np.float32),
        location=location.astype(np.float32),
        axes=axes.astype(np.float32),
        detail=detail.astype(np.float32),
        limits=np.ones(3, np.float32),
    )


def limited(reference: Reference, features: np.ndarray, statistics: np.ndarray, kept: float = KEPT) -> Reference:
    """Returns the reference with limits that a share `kept` of held-out pictures, or little more, is below in all.

    kept: above 0. The limits' proportions are those of limits that each lose their share of `_LOST_BY` alone. Of other
    pictures a little more is lost, as the limits are fitted: at 0.99, 5 % where 50 pictures were held out and 1.6 %
    where 300 were.

    Raises `InputError` if the pictures are all alike, so that there is no limit.
    """
    measures = reference.measures(features, statistics)
    shares = [1 - (1 - kept) * lost for lost in _LOST_BY]
    limits = np.array([np.quantile(*pair) for pair in zip(measures.T, shares, strict=True)])
    if not (limits > _TINY).all():
        raise errors.InputError("the held-out pictures are copies of training pictures or all alike")
    largest = np.sort((measures / limits).max(axis=1))
    # Not all of a float's digits count: (1 - 0.9) * 10 is below 1.
    limits *= largest[-1 - int((1 - kept) * len(measures) + 1e-9)]
    return dataclasses.replace(reference, limits=limits.astype(np.float32))
