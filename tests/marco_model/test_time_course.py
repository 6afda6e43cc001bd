import dataclasses

import numpy as np
import pytest

from marco_model import calibration, errors, model_directory, time_course
from marco_model.time_course import Series, TimeCourse

CLASSES, FEATURES, COMPONENTS = 3, 8, 2
CRYSTALS = [1]


def course(seed=0, **changes):
    rng = np.random.default_rng(seed)
    return TimeCourse(
        classes=np.array(CRYSTALS),
        temperature=1.7,
        axes=rng.normal(0, 1, (FEATURES, COMPONENTS)),
        weights=rng.normal(0, 0.5, 3 + COMPONENTS + CLASSES),
        **changes,
    )


def series(seed, count=4):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet([1, 1, 1], count)
    return Series(rng.normal(0, 1, (count, COMPONENTS)), scores)


@pytest.mark.parametrize("count", [4, 2])
def test_the_probability_is_as_described(count):
    regression, drop = course(2), series(5, count)
    probabilities = calibration.calibrate(drop.scores, 1.7).astype(float)
    odds = [np.log(row[1] / (1 - row[1])) for row in probabilities]
    expected = [probabilities[0, 1]]
    for picture in range(1, count):
        before = [
            np.mean([view[picture - 1 - earlier] for earlier in range(picture)], axis=0)
            for view in (drop.views, np.log(probabilities))
        ]
        changes = [drop.views[picture] - before[0], np.log(probabilities[picture]) - before[1]]
        logit = regression.weights @ np.concatenate([[1, odds[picture], max(odds[: picture + 1])], *changes])
        expected.append(1 / (1 + np.exp(-logit)))
    np.testing.assert_allclose(regression.probabilities(drop), expected, rtol=1e-6)


def test_a_single_picture_has_its_own_probability_of_crystals():
    drop = series(4, 1)
    expected = calibration.calibrate(drop.scores, 1.7)[:, 1]
    np.testing.assert_allclose(course().probabilities(drop), expected, atol=1e-6)


def test_later_pictures_change_no_answer():
    drop = series(1)
    whole = course().probabilities(drop)
    for count in range(1, 4):
        part = Series(drop.views[:count], drop.scores[:count])
        np.testing.assert_allclose(course().probabilities(part), whole[:count], rtol=1e-12)


def test_extreme_scores_give_probabilities():
    drop = Series(np.full((3, COMPONENTS), 1e6), np.eye(3)[[0, 1, 0]])
    assert np.all(np.isfinite(course().probabilities(drop)))


def test_the_alarm_is_the_first_picture_at_the_threshold():
    chain = course(thresholds=np.array([0.2, 0.7]))
    assert chain.alarm(np.array([0.1, 0.7, 0.2, 0.9])) == 1
    assert chain.alarm(np.array([0.1, 0.69])) is None
    assert chain.alarm(np.array([0.2, 0.69])) == 0


def test_it_is_kept_as_a_file(tmp_path):
    chain = course(thresholds=np.array([0.8, 0.9]))
    file = tmp_path / "old.npz"
    file.write_bytes(chain.to_bytes())
    again = model_directory.read_arrays(time_course.TimeCourse, file)
    drop = series(3)
    np.testing.assert_array_equal(again.probabilities(drop), chain.probabilities(drop))
    assert (again.thresholds.tolist(), again.temperature) == ([0.8, 0.9], 1.7)
    file.write_bytes(b"PK")
    with pytest.raises(errors.InputError, match=r"/old\.npz is damaged .*; export the model again$"):
        model_directory.read_arrays(time_course.TimeCourse, file)


def simulated(count, seed):
    """Drops without crystals at first; scores tell drops apart rather than states, and one feature tells change."""
    rng = np.random.default_rng(seed)
    drops = []
    for _ in range(count):
        come = rng.geometric(0.2)
        crystals = np.arange(5) >= come
        features = rng.normal(0, 2, FEATURES) + rng.normal(0, 0.3, (5, FEATURES))
        features[:, 0] += 2.5 * crystals
        odds = rng.normal(-1, 2) + 2 * crystals + rng.normal(0, 0.5, 5)
        score = 1 / (1 + np.exp(-odds))
        scores = np.stack([(1 - score) / 2, score, (1 - score) / 2], axis=1)
        drops.append(Series(features.astype(np.float32), scores.astype(np.float32), crystals))
    return drops


def early_and_late(alarms, drops):
    """The shares of drops with an alarm before crystals, and of those with crystals that have none within one more."""
    first = [int(np.argmax(drop.crystals)) if drop.crystals.any() else 9 for drop in drops]
    early = np.mean([alarm is not None and alarm < when for alarm, when in zip(alarms, first, strict=True)])
    late = [alarm is None or alarm > when + 1 for alarm, when in zip(alarms, first, strict=True) if when < 4]
    return early, np.mean(late)


@pytest.fixture(scope="module")
def fitted():
    return time_course.fit(simulated(300, 1), simulated(200, 2), CRYSTALS, 1.0)


@pytest.mark.slow
def test_a_fitted_course_tells_when_crystals_came_where_scores_do_not(fitted):
    drops = simulated(1000, 3)
    projected = [drop._replace(views=fitted.project(drop.views)) for drop in drops]
    early, late = early_and_late([fitted.alarm(fitted.probabilities(drop)) for drop in projected], drops)
    assert early < 0.025 and late < 0.1

    scores = [drop.scores[:, 1] for drop in drops]
    limit = np.quantile([score[~drop.crystals].max(initial=0) for score, drop in zip(scores, drops, strict=True)], 0.99)
    alone = [int(np.argmax(score >= limit)) if (score >= limit).any() else None for score in scores]
    assert early_and_late(alone, drops)[1] > 0.5


@pytest.mark.slow
def test_fitting_again_gives_the_same(fitted):
    again = time_course.fit(simulated(300, 1), simulated(200, 2), CRYSTALS, 1.0)
    for name, value in dataclasses.asdict(fitted).items():
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)


def sharp(count, seed, certainty, seen=None):
    """Drops whose log-odds are `certainty` with crystals and as far below 0 without; with `seen`, that throughout."""
    rng = np.random.default_rng(seed)
    drops = []
    for _ in range(count):
        crystals = np.arange(5) >= (rng.geometric(0.2) if seen is None else 5)
        odds = np.where(crystals, certainty, -certainty) + rng.normal(0, 1, 5) if seen is None else np.full(5, seen)
        score = 1 / (1 + np.exp(-odds))
        scores = np.stack([(1 - score) / 2, score, (1 - score) / 2], axis=1)
        drops.append(Series(rng.normal(0, 1, (5, FEATURES)), scores, crystals))
    return drops


def test_a_network_that_knows_its_training_drops_still_tells_sure_crystals_from_those_of_other_drops():
    held_out = [*sharp(196, 2, 2.0), *sharp(3, 3, 2.0, seen=4.0)]
    found = time_course.fit(sharp(100, 6, 3.0), held_out, CRYSTALS, 1.0)
    drops = [drop._replace(views=found.project(drop.views)) for drop in sharp(200, 4, 9.0)]
    early, late = early_and_late([found.alarm(found.probabilities(drop)) for drop in drops], drops)
    assert early < 0.02 and late < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_a_course_finds_no_fewer_drops_in_time_than_the_scores_alone(seed):
    """Held-out drops are surer than those of the training, and two that always look like crystals set the limit."""
    training = sharp(150, 10 + seed, 1.0)
    held_out = [*sharp(118, 20 + seed, 3.0), *sharp(2, 30 + seed, 3.0, seen=3.0)]
    found = time_course.fit(training, held_out, CRYSTALS, 1.0)
    alone = dataclasses.replace(found, weights=np.eye(len(found.weights))[1])
    projected = [drop._replace(views=found.project(drop.views)) for drop in held_out]
    counts = [time_course.alarms_in_time(time_course.limited(each, projected), projected) for each in (found, alone)]
    assert counts[0] >= counts[1] > 40


def test_the_threshold_is_the_lowest_that_leaves_a_share_of_early_alarms():
    rng = np.random.default_rng(0)
    drops = [series(seed, 1)._replace(crystals=np.array([rng.random() < 0.3])) for seed in range(199)]
    limited = time_course.limited(course(), drops, 0.1)
    highest = np.sort([0.0 if drop.crystals[0] else limited.probabilities(drop)[0] for drop in drops])
    # 190 of 200, counting the drop to come.
    assert limited.alarm(np.array([highest[189]])) is None and limited.alarm(np.array([highest[190]])) == 0


def test_few_held_out_drops_leave_no_early_alarm():
    drops = [series(seed, 1)._replace(crystals=np.zeros(1, bool)) for seed in range(20)]
    limited = time_course.limited(course(), drops)
    assert [limited.alarm(limited.probabilities(drop)) for drop in drops] == [None] * 20
