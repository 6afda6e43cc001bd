import json

import pytest

from components import leave_out
from components.report.page import leave_out_page
from marco_model.labels import CLASSES
from tests.components.report.reading import Page, read_number, value_at


def build(predictions, target="Crystals", smallest=20, count=300):
    home, away = predictions(count), predictions(count, ties=True)
    away = away.assign(scores=away["scores"].map(lambda scores: scores[::-1]))
    content = leave_out.compare(home, away, "institution", ["CSIRO", "Merck"], CLASSES, target, smallest)
    content = json.loads(json.dumps(content, allow_nan=False))
    return content, Page(leave_out_page(content))


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({}, 40), ({"target": None}, 20), ({"smallest": 1000}, 20), ({"count": 3}, 10)],
)
def test_every_number_on_the_page_is_the_value_of_its_source(predictions, options, numbers):
    content, page = build(predictions, **options)
    shown = [(attributes, text) for attributes, text in page.sourced if "data-format" in attributes]
    assert len(shown) >= numbers
    for attributes, text in shown:
        value = value_at(content, attributes["data-source"])
        if value is None:
            assert text == "–"
            continue
        number, tolerance, percent = read_number(text)
        scale = 100 if percent or attributes["data-format"] in ("share", "points") else 1
        assert number == pytest.approx(scale * value, abs=tolerance * 1.0001), attributes
    assert not any(character.isdigit() for text in page.loose for character in text)


def test_the_page_makes_no_request_and_shows_names_as_text(predictions):
    content, _ = build(predictions)
    content["rows"][0]["value"] = "<b>CSIRO</b>"
    page = Page(leave_out_page(content))
    assert ("<b>CSIRO</b>" in {text for _, text in page.sourced}) and not page.links
    assert page.loose.count("too few images") == 0
    _, few = build(predictions, smallest=1000)
    assert few.loose.count("too few images") == 4
