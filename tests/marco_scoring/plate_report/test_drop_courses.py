"""What a plate page says of drops over time, in headless Chromium."""

import pytest

from marco_scoring import plate_report
from tests.marco_scoring import test_drop_courses as drops

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("width", [1280, 390])
def test_each_drop_says_since_when_it_has_crystals(tmp_path, visit, width):
    files, report = drops.draw_plate(tmp_path / "pictures"), tmp_path / "plate.html"
    options = plate_report.Options(["marco", "explain"])
    plate_report.predict_with_report(drops.Brightness(), files, None, report, options)
    page = visit(report, width)
    page.get_by_role("button", name="Over time").click()
    texts = {
        strip.locator("h3").inner_text().split("\n")[0][:2]: strip.locator(".course.hint").inner_text()
        for strip in page.locator(".over-time").all()
    }
    assert texts == {
        "A1": "Crystals since inspection 10, by all pictures together.",
        "A2": "Crystals since inspection 2, by all pictures together.",
        "A3": "No crystals so far, by all pictures together.",
    }
    strip = page.locator(".over-time", has_text="A1").first
    assert len(strip.locator("polyline.course").get_attribute("points").split()) == 4
    strip.locator(".frame").first.click()
    assert page.locator("dialog .course.hint").inner_text() == texts["A1"]
