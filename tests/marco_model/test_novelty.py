from unittest import mock

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance
from sklearn import linear_model, neighbors

from marco_model import InputError, model_directory, novelty, store

PICTURES, FEATURES, STATISTICS = 300, 20, novelty.picture_statistics(np.zeros((3, 32, 32), np.float32)).size


@pytest.fixture(scope="module")
def described():
    """Features, statistics and labels of three classes that share a covariance of few large directions."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), PICTURES // 3)
    spread = draw.normal(size=(5, FEATURES)) * 3
    features = labels[:, None] * 4.0 + draw.normal(size=(PICTURES, 5)) @ spread + draw.normal(size=(PICTURES, FEATURES))
    mixed = draw.normal(size=(PICTURES, STATISTICS)) @ draw.normal(size=(STATISTICS, STATISTICS))
    return features, 5 + mixed, labels


def test_distances_are_mahalanobis_by_class_and_to_the_nearest_pictures(described):
    features, statistics, labels = described
    reference = novelty.fit(*described)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    within = features - means[labels]
    variances, axes = np.linalg.eigh(within.T @ within / PICTURES)
    kept = reference.components.shape[1]
    leading, others = axes[:, -kept:], variances[:-kept]
    rest = others.mean() if len(others) else 1e-6 * variances[-1]
    covariance = (leading * variances[-kept:]) @ leading.T + rest * (np.eye(FEATURES) - leading @ leading.T)
    inverse = np.linalg.inv(covariance)
    expected = [min(distance.mahalanobis(row, mean, inverse) for mean in means) for row in features]
    np.testing.assert_allclose(reference.feature_distances(features) * np.sqrt(FEATURES), expected, rtol=1e-5)

    scaled = (statistics - statistics.mean(axis=0)) / statistics.std(axis=0)
    inverse = np.linalg.inv(np.cov(scaled.T, ddof=0) + novelty._LEAST_VARIANCE * np.eye(STATISTICS))
    nearest = neighbors.NearestNeighbors(n_neighbors=5, metric="mahalanobis", metric_params={"VI": inverse})
    found, _ = nearest.fit(scaled).kneighbors(scaled)
    np.testing.assert_allclose(
        reference.picture_distances(statistics), found.mean(axis=1) / np.sqrt(STATISTICS), atol=1e-5
    )


def test_blur_is_the_fine_detail_that_is_missing_from_what_contrast_predicts(described):
    _, statistics, _ = described
    reference = novelty.fit(*described)
    finest, contrast = statistics[:, 10], statistics[:, 15:]
    predicted = linear_model.LinearRegression().fit(contrast, finest).predict(contrast)
    np.testing.assert_allclose(np.log(reference.blur(statistics)), predicted - finest, atol=1e-5)


def test_pictures_out_of_focus_are_novel_and_faint_ones_are_not():
    """Among training pictures of every contrast are a few that are somewhat blurred, and near those out of focus."""
    draw = np.random.default_rng(3)

    def pictures(count, low, high):
        contrasts = np.exp(draw.uniform(np.log(0.05), np.log(1.5), count))
        return np.stack([picture(contrast, draw.uniform(low, high)) for contrast in contrasts])

    def picture(contrast, blur):
        light = draw.normal(0, 0.3) + draw.normal(0, 0.2) * np.linspace(-1, 1, 96)
        edges = ndimage.gaussian_filter(draw.normal(size=(96, 96)), draw.uniform(3, 12)) > draw.uniform(-0.02, 0.02)
        grey = light + ndimage.gaussian_filter(contrast * (edges - 0.5), blur)
        return novelty.picture_statistics(np.tile(grey, (3, 1, 1)).astype(np.float32))

    features = draw.normal(size=(600, 8))
    statistics = np.concatenate([pictures(588, 0.5, 1), pictures(12, 1.5, 2)])[draw.permutation(600)]
    reference = novelty.fit(features[:300], statistics[:300], np.arange(300) % 2)
    reference = novelty.limited(reference, features[300:], statistics[300:])
    assert (reference.novelty(features[:100], pictures(100, 4, 5)) > 1).mean() > 0.95
    for blur in ((0.5, 4), (4, 0.5)):
        assert (reference.novelty(features[:100], pictures(100, blur, blur)) > 1).mean() > 0.9, blur
    assert (reference.novelty(features[:100], pictures(100, 0.5, 1)) > 1).mean() < 0.05


@pytest.mark.parametrize("kept", [0.95, 0.99])
@pytest.mark.parametrize("held_out", [50, 150])
def test_the_limits_keep_the_share_of_held_out_pictures(described, kept, held_out):
    features, statistics, labels = described
    training = np.arange(PICTURES) % (PICTURES // held_out) > 0
    reference = novelty.fit(features[training], statistics[training], labels[training])
    reference = novelty.limited(reference, features[~training], statistics[~training], kept)
    novelties = reference.novelty(features[~training], statistics[~training])
    assert kept <= (novelties <= 1).mean() < kept + 1 / held_out
    far = reference.novelty(features[:1] + 100, statistics[:1]), reference.novelty(features[:1], statistics[:1] + 100)
    assert np.min(far) > 3


def test_a_reference_is_read_as_it_was_written(described, tmp_path):
    features, statistics, _ = described
    reference = novelty.limited(novelty.fit(*described), features, statistics)
    file = tmp_path / "novelty.npz"
    file.write_bytes(reference.to_bytes())
    again = model_directory.read_arrays(novelty.Reference, file)
    np.testing.assert_allclose(again.novelty(features, statistics), reference.novelty(features, statistics), rtol=1e-4)
    earlier = {name: values for name, values in vars(reference).items() if name != "detail"}
    file.write_bytes(store.npz(earlier))
    assert model_directory.read_arrays(novelty.Reference, file) is None
    file.write_bytes(reference.to_bytes()[:2000])
    with pytest.raises(InputError, match=r"novelty.npz is damaged .*; export the model again"):
        model_directory.read_arrays(novelty.Reference, file)


def test_each_measure_loses_its_share_of_what_the_limits_lose():
    """The measures have different tails, and none has values where another is large."""
    draw = np.random.default_rng(4)
    measures = draw.lognormal(sigma=[0.1, 1, 2], size=(20_000, 3))
    reference = mock.Mock(novelty.Reference, measures=lambda *_: measures)
    with mock.patch("dataclasses.replace", lambda _, limits: limits):
        limits = novelty.limited(reference, measures, measures, kept=0.9)
    assert np.mean((measures > limits).any(axis=1)) == pytest.approx(0.1, abs=1e-4)
    np.testing.assert_allclose((measures > limits).mean(axis=0), [0.01, 0.07, 0.02], atol=0.003)


@pytest.mark.parametrize("what", ["features", "pictures"])
def test_pictures_that_are_all_alike_have_no_limit(described, what):
    features, statistics, labels = described
    features, statistics = (
        (np.ones_like(features), statistics) if what == "features" else (features, np.ones_like(statistics))
    )
    reference = novelty.fit(features, statistics, labels)
    with pytest.raises(InputError, match="held-out pictures are copies of training pictures or all alike"):
        novelty.limited(reference, features, statistics)


def test_fewer_pictures_than_features_and_a_class_of_one(described):
    features, statistics, labels = described
    wide = np.tile(features[:60], 20)
    lonely = np.append(labels[:59], 2)
    reference = novelty.limited(novelty.fit(wide, statistics[:60], lonely), wide, statistics[:60])
    assert np.isfinite(reference.novelty(wide, statistics[:60])).all()


@pytest.mark.parametrize("size", [64, 300])
def test_statistics_are_of_brightness_colour_and_the_duller_direction(size):
    """Every pixel is looked at, where the statistics look at some lines of a large picture."""
    draw = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(draw.normal(size=(3, size, size)), (0, 2, 1))
    picture = (0.2 * smooth / smooth.std() + np.array([0.1, -0.2, 0.3])[:, None, None]).astype(np.float32)
    grey = picture.mean(axis=0)
    colours = picture.reshape(3, -1)
    saturation = (colours.max(axis=0) - colours.min(axis=0)).mean()
    expected = [*colours.mean(axis=1), *colours.std(axis=1), saturation, *np.quantile(grey, [0.01, 0.99])]
    for apart in (1, 2, 4, 8):
        down, across = (np.abs(part[apart:] - part[:-apart]) for part in (grey, grey.T))
        assert down.mean() < across.mean()  # It was smoothed more along columns.
        expected += np.log([down.mean() + 1e-3, np.quantile(down, 0.99) + 1e-3]).tolist()
    for turned in (picture, picture.transpose(0, 2, 1)):
        np.testing.assert_allclose(novelty.picture_statistics(turned), expected, atol=0.03)
