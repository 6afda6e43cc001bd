"""An injected change is flagged and its cause is named first; clean resamples are not flagged."""

import dataclasses

import cv2
import numpy as np
import pytest

from components.monitoring.drift import check
from components.monitoring.two_sample import Limits

HOME, MERCK = "HWMRI / HWMRI home system", "Merck / Formulatrix Rock Imager"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def old(pool):
    return pool.reference(np.arange(240))


NEW = np.arange(240, 400)


def verdicts_of(reference, table, **options):
    return {verdict.imager: verdict for verdict in check(reference, reference.project(table), {}, Limits(), **options)}


def darken(image):
    return np.clip(image * 0.7, 0, 255).astype(np.uint8)


def blur(image):
    return cv2.GaussianBlur(image, (0, 0), 1)


@pytest.mark.parametrize(("change", "first"), [(darken, "brightness"), (blur, "sharpness")])
def test_a_change_of_the_images_is_flagged_and_named_first(pool, old, change, first):
    verdicts = verdicts_of(old, pool.apply(NEW, change))
    assert {imager: verdict.first for imager, verdict in verdicts.items()} == {HOME: first, MERCK: first}


def test_a_change_of_one_imager_is_not_reported_for_the_other(pool, old):
    table = pool.apply(NEW, darken)
    clean = pool.all.take(NEW)
    mixed = [table.of_imager(HOME), clean.of_imager(MERCK)]
    joined = type(table)(
        *(np.concatenate(parts) for parts in zip(*(vars(part).values() for part in mixed), strict=True))
    )
    verdicts = verdicts_of(old, joined)
    assert (verdicts[HOME].status, verdicts[MERCK].status) == ("alarm", "clean")


def test_a_new_imager_is_flagged_by_its_name(pool, old):
    verdicts = verdicts_of(old, pool.with_imager(pool.all.take(NEW).of_imager(MERCK), "Lab / Other make"))
    (verdict,) = verdicts.values()
    assert (verdict.status, verdict.first, verdict.compared_with) == ("new imager", "new imager", "")
    assert verdict.resembles[0] in (HOME, MERCK)


def test_a_new_imager_under_an_old_name_is_flagged(pool, old):
    verdicts = verdicts_of(old, pool.with_imager(pool.all.take(NEW).of_imager(HOME), MERCK))
    assert verdicts[MERCK].first == "new imager"


def test_a_shift_of_the_classes_is_flagged_and_named_first(pool, old):
    # Three quarters crystals in place of a quarter.
    crystals = pool.labels[NEW] == 1
    rng = np.random.default_rng(0)
    rows = np.concatenate([NEW[crystals], rng.choice(NEW[~crystals], crystals.sum() // 3, replace=False)])
    together = dataclasses.replace(old, table=pool.with_imager(old.table, "Lab"))
    (verdict,) = verdicts_of(together, pool.with_imager(pool.all.take(rows), "Lab")).values()
    assert verdict.first == "classes"
    assert [test.kind for test in verdict.tests if test.alarm] == ["classes"]


def test_twenty_clean_resamples_raise_at_most_one_alarm(pool):
    alarms = 0
    for seed in range(20):
        rows = np.arange(400)
        rows = np.random.default_rng(seed).permutation(rows)
        verdicts = verdicts_of(pool.reference(rows[:240]), pool.all.take(rows[240:]), seed=seed)
        assert {verdict.status for verdict in verdicts.values()} <= {"clean", "alarm", "new imager"}
        alarms += any(verdict.alarming for verdict in verdicts.values())
    assert alarms <= 1


def test_too_few_images_are_reported_as_too_few(pool, old):
    few = pool.apply(NEW[:20], darken)
    assert {verdict.status for verdict in verdicts_of(old, few).values()} == {"too few"}


def test_images_of_an_unknown_imager_are_not_a_new_imager(pool, old):
    (verdict,) = verdicts_of(old, pool.with_imager(pool.all.take(NEW), "unknown")).values()
    assert (verdict.status, verdict.compared_with) == ("clean", "")


def test_an_imager_without_measurable_images_is_reported(pool, old):
    table = old.project(pool.all.take(NEW))
    verdicts = {verdict.imager: verdict for verdict in check(old, table, {"Lab / Broken": 7})}
    assert (verdicts["Lab / Broken"].status, verdicts["Lab / Broken"].seen) == ("too few", 7)


def test_a_new_imager_resembles_the_one_whose_images_are_nearest(old):
    far = np.where(old.table.imager == MERCK, 100.0, 0.0)[:, None].astype(np.float32)
    apart = dataclasses.replace(old, table=dataclasses.replace(old.table, embedding=old.table.embedding * 0 + far))
    rows = old.table.imager == MERCK
    rows[np.flatnonzero(~rows)[: rows.sum() // 3]] = True
    new = dataclasses.replace(apart.table.take(rows), imager=np.array(["Lab"] * rows.sum(), object))
    (verdict,) = check(apart, new, {})
    assert verdict.resembles[0] == MERCK
    assert verdict.resembles[1] == pytest.approx(0.75, abs=0.01)
