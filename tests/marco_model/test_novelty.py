import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance
from sklearn import linear_model, neighbors

from marco_model import InputError, novelty

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

    def pictures(count, *blur):
        return np.stack([picture(np.exp(draw.uniform(np.log(0.05), np.log(1.5))), blur) for _ in range(count)])

    def picture(contrast, blur):
        light = draw.normal(0, 0.3) + draw.normal(0, 0.2) * np.linspace(-1, 1, 96)
        edges = ndimage.gaussian_filter(draw.normal(size=(96, 96)), draw.uniform(3, 12)) > draw.uniform(-0.02, 0.02)
        grey = light + ndimage.gaussian_filter(contrast * (edges - 0.5), draw.uniform(*blur))
        return novelty.picture_statistics(np.tile(grey, (3, 1, 1)).astype(np.float32))

    features = draw.normal(size=(600, 8))
    statistics = np.concatenate([pictures(588, 0.5, 1), pictures(12, 1.5, 2)])[draw.permutation(600)]
    reference = novelty.fit(features[:300], statistics[:300], np.arange(300) % 2)
    reference = novelty.limited(reference, features[300:], statistics[300:])
    assert (reference.novelty(features[:100], pictures(100, 4, 5)) > 1).mean() > 0.95
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


def test_a_reference_is_read_as_it_was_written(described):
    features, statistics, _ = described
    reference = novelty.limited(novelty.fit(*described), features, statistics)
    again = novelty.read(reference.to_bytes(), "novelty.npz")
    np.testing.assert_allclose(again.novelty(features, statistics), reference.novelty(features, statistics), rtol=1e-4)
    with pytest.raises(InputError, match=r"novelty.npz is damaged .*; export the model again"):
        novelty.read(reference.to_bytes()[:2000], "novelty.npz")


def test_fewer_pictures_than_features_and_a_class_of_one(described):
    features, statistics, labels = described
    wide = np.tile(features[:60], 20)
    lonely = np.append(labels[:59], 2)
    reference = novelty.limited(novelty.fit(wide, statistics[:60], lonely), wide, statistics[:60])
    assert np.isfinite(reference.novelty(wide, statistics[:60])).all()


def test_statistics_tell_brightness_colour_and_sharpness():
    draw = np.random.default_rng(1)
    picture = draw.uniform(-0.5, 0.5, (3, 64, 64)).astype(np.float32)
    blurred = picture.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)).repeat(4, axis=1).repeat(4, axis=2)
    changes = {
        "brighter": picture + 0.3,
        "redder": picture + np.float32([0.3, 0, 0])[:, None, None],
        "blurred": blurred,
    }
    base = novelty.picture_statistics(picture)
    for name, changed in changes.items():
        assert np.abs(novelty.picture_statistics(changed) - base).max() > 0.15, name
    mirrored = novelty.picture_statistics(picture[:, :, ::-1])
    np.testing.assert_allclose(mirrored, base, atol=0.1)
