"""Verdicts on imagers with too few images, in the check or in the reference, or with unreadable ones."""

import numpy as np
import pytest

from components.monitoring import watch
from components.monitoring.drift import check, make_reference
from components.monitoring.measure import Measured
from components.monitoring.statistics import NAMES, Table
from components.monitoring.two_sample import Limits

CLASSES = ["Clear", "Crystals"]


def images(count, imager, shift=0.0):
    rng = np.random.default_rng(count)
    return Table(
        imager=np.array([imager] * count, object),
        name=np.array([str(number) for number in range(count)], object),
        statistics=rng.normal(shift, 1, (count, len(NAMES))),
        embedding=rng.normal(shift, 1, (count, 6)).astype(np.float32),
        scores=rng.dirichlet([1, 1], count).astype(np.float32),
        thumbnail=np.array([b""] * count, object),
    )


def reference(count):
    return make_reference(
        Measured(images(count, "Rock"), {"Rock": count}, []), {"name": "m", "fingerprint": "", "classes": CLASSES}
    )


def check_images(before, now, failed=0):
    """Returns verdict, headline and outcome for the table `now` and `failed` further images that are broken."""
    old = reference(before)
    table = old.project(now)
    (verdict,) = check(old, table, {"Rock": len(now) + failed}, failed={"Rock": failed})
    measured = Measured(now, {"Rock": len(now) + failed}, [("Rock", str(number), "broken") for number in range(failed)])
    outcome = watch.as_json([verdict], measured, old, Limits())
    page = watch.as_html(outcome, [verdict], table, old)
    assert watch.headline(verdict, CLASSES) in page.replace("&#39;", "'")
    return verdict, watch.headline(verdict, CLASSES), outcome


def test_a_reference_with_too_few_images_is_blamed_and_not_the_new_images():
    verdict, headline, outcome = check_images(30, images(500, "Rock", shift=3))
    assert (verdict.status, outcome["alarm"]) == ("too few in the reference", False)
    assert headline == (
        "cannot be decided: the reference has 30 images of this imager, too few to compare 500 images with; "
        "make it again with more (marco monitor reference)"
    )
    assert watch.summary(outcome) == "Too few images to tell"


@pytest.mark.parametrize(("measured", "failed"), [(0, 120), (80, 20), (40, 10)])
def test_many_unreadable_images_are_an_alarm(measured, failed):
    verdict, headline, outcome = check_images(100, images(measured, "Rock"), failed)
    assert (verdict.status, verdict.first, outcome["alarm"]) == ("unreadable", "unreadable", True)
    assert headline == f"unreadable: {failed} of {measured + failed} images"
    assert watch.summary(outcome) == "Rock: unreadable"


def test_an_unreadable_imager_reports_its_other_changes():
    verdict, headline, _ = check_images(100, images(100, "Rock", shift=3), 60)
    assert verdict.status == "unreadable"
    assert headline.startswith("unreadable: 60 of 160 images; also ")


@pytest.mark.parametrize(
    ("measured", "failed", "status", "headline"),
    [
        (90, 20, "clean", "no change (90 images)"),
        (20, 29, "too few", "too few to tell: 20 images, and 29 unreadable"),
        (20, 0, "too few", "too few to tell: 20 images"),
    ],
)
def test_a_few_unreadable_images_are_no_alarm(measured, failed, status, headline):
    verdict, shown, outcome = check_images(100, images(measured, "Rock"), failed)
    assert (verdict.status, shown, outcome["alarm"]) == (status, headline, False)
