"""The model card holds the report's own numbers, and names as text."""

import json
import re

import pytest
import yaml

from components.report import numbers, page
from components.settings import ReportOptions
from tests.components.report import test_page

ABOUT = {
    **test_page.ABOUT,
    "network": {"architecture": "inception_v3", "input_size": 599},
    "splits": {"train": 1200, "validation": 150, "eval": 300},
    "license": "",
}


def build(table, evaluation, about=ABOUT, **options):
    report = numbers.numbers(table, evaluation, ReportOptions(), temperature=0.7, about=about, **options)
    report = json.loads(json.dumps(report))
    return report, page.card(report)


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def rows(card):
    """Returns the cells of all tables' rows by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def percent(share):
    return f"{100 * share:.1f}\u202f%"


def test_the_numbers_are_those_of_the_report(predictions, evaluation):
    report, card = build(predictions(300), evaluation(), decision=test_page.DECISION, training=test_page.TRAINING)
    metrics = {metric["type"]: metric["value"] for metric in header(card)["model-index"][0]["results"][0]["metrics"]}
    assert metrics == {"accuracy": report["accuracy"]["share"], "recall": report["target"]["recall"]["share"]}
    table = rows(card)
    for part in report["slices"]:
        for row in part["rows"]:
            accuracy, found = row["accuracy"], row["target"]
            assert table[row["name"]] == [
                str(accuracy["count"]),
                f"{percent(accuracy['share'])} ({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})",
                f"{percent(found['share'])} ({100 * found['low']:.1f} to {100 * found['high']:.1f})",
            ]
    for row in report["confusion"]["rows"]:
        (share,) = (cell["share"] for cell in row["cells"] if cell["predicted"] == row["name"])
        assert table[row["name"]] == [str(row["count"]), percent(share)]
    assert [table[split][0] for split in ("train", "validation", "eval")] == ["1,200", "150", "300"]
    assert f"{100 * report['calibration']['ece']['scores']:.2f}\u202f%" in card
    assert "weights of step 15 of 30" in card
    assert "Not blessed" in card
    assert r"fell by 5.1 points \<really\>" in card
    assert "drawn, not photographed" in card
    assert header(card)["license"] == "unknown"


@pytest.mark.parametrize("classes", [("Hit", "Miss"), ("on", "a|b\n# c")])
def test_other_classes_few_images_and_names_like_markup(predictions, evaluation, classes):
    about = {"model": "null: [x]", "license": "cc-by-4.0"}
    table = predictions(5, classes=classes).assign(institution="| <b>", imager="_x_")
    report, card = build(table, evaluation(classes), about)
    assert header(card)["model-index"][0]["name"] == "null: [x]"
    assert header(card)["license"] == "cc-by-4.0"
    assert r"\| \<b\>" in rows(card)
    assert "<b>" not in card.replace(r"\<b\>", "")
    assert "Too few images to judge by (under 20)" in card
    assert report["target"] is None
    assert not re.search(r"\n{3}|None|Undefined", card)


def test_no_gain_and_a_choice_by_the_same_images_are_said(predictions, evaluation):
    about = {**ABOUT, "validation": "eval", "synthetic": False}
    _, card = build(predictions(60), evaluation(), about, training={**test_page.TRAINING, "best_step": 0})
    assert "**Training gained nothing**" in card
    assert "come out too good" in card
    assert "drawn, not photographed" not in card
