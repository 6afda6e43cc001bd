"""Every number on the page is a value of report.json: the page is read back, and no other text has a digit."""

import json
import re

import numpy as np
import pytest

from components import evaluations
from components.report.numbers import numbers
from components.report.page import page
from components.report.plots import figures
from components.settings import ReportOptions
from marco_model.labels import CLASSES
from tests.components.report.reading import Page, read_number, value_at

IN_HUNDREDTHS = {"share", "points"}
ABOUT = {
    "model": "marco-3f2a91bc",
    "created": "2026-11-26 10:15 UTC",
    "data_fingerprint": "a3f1c09e",
    "mlflow_run_id": "7c0e",
    "commit": "8fce281",
    "dirty": False,
    "synthetic": True,
    "versions": [{"name": "tensorflow", "version": "2.16.2"}],
}
DECISION = {
    "blessed": False,
    "champion": {"model": "gs://models/6", "version": "6"},
    "reasons": ["imager/Rigaku Minstrel fell by 5.1 points <really>"],
    "checks": [
        {
            "name": "imager/Rigaku Minstrel",
            "kind": "slice",
            "count": 1107,
            "candidate": 0.813,
            "champion": 0.8641,
            "difference": -0.0511,
            "low": -0.1,
            "high": 0.012,
            "limit": None,
            "passed": False,
        }
    ],
}


TRAINING = {
    "steps": 30,
    "best_step": 15,
    "history": [
        {"step": 0, "loss": 0.41, "accuracy": 0.918},
        {"step": 15, "loss": 0.35, "accuracy": 0.943},
        {"step": 30, "loss": 0.36, "accuracy": 0.925},
    ],
}


def build(table, evaluation, **options):
    report = numbers(table, evaluation, ReportOptions(), temperature=0.7, about=ABOUT, **options)
    report = json.loads(json.dumps(report, allow_nan=False))
    rows = {image["row"] for kind in report["errors"] for image in kind["images"]}
    rows |= {image["row"] for image in report["disagreements"]}
    pictures = {f"image/{row}": b"jpeg" for row in rows}
    return report, page(report, figures(report), pictures)


@pytest.fixture(
    scope="module",
    params=[
        "paper's classes",
        "gate",
        "start",
        "alone",
        "averaged",
        "no gain",
        "other classes",
        "ten classes",
        "no crystals",
        "few images",
        "no errors",
    ],
)
def written(request, predictions, evaluation):
    """(report, HTML) of every kind of run."""
    if request.param == "gate":
        return build(predictions(300), evaluation(), decision=DECISION)
    if request.param == "start":
        start = {**DECISION, "champion": {"model": "released", "version": "start"}}
        return build(predictions(300), evaluation(), decision=start, training=TRAINING)
    if request.param == "alone":
        check = {**DECISION["checks"][0], "name": "accuracy", "kind": "constant"}
        return build(predictions(300), evaluation(), decision={**DECISION, "champion": None, "checks": [check]})
    if request.param == "averaged":
        content = evaluations.compare_averaged(predictions(300), predictions(300, seed=0, ties=True), CLASSES, 8)
        return build(predictions(300), evaluation(averaged=content))
    if request.param == "no gain":
        return build(predictions(300), evaluation(), training={**TRAINING, "best_step": 0})
    if request.param == "other classes":
        return build(
            predictions(90, classes=("Hit", "Miss")), evaluation(("Hit", "Miss"), blessed=False, failures=["low 0.5"])
        )
    if request.param == "ten classes":
        classes = tuple(f"Class {number}" for number in range(10))
        return build(predictions(200, classes=classes), evaluation(classes))
    if request.param == "no crystals":
        table = predictions(90)
        return build(table[table["label"] != 1].reset_index(drop=True), evaluation())
    if request.param == "few images":
        return build(predictions(3), evaluation())
    if request.param == "no errors":
        table = predictions(300)
        right = [scores.argmax() == label for scores, label in zip(table["scores"], table["label"], strict=True)]
        return build(table[right].reset_index(drop=True), evaluation())
    return build(predictions(300), evaluation())


def test_every_number_and_name_is_the_value_of_its_source(written):
    report, html = written
    shown = Page(html).sourced
    assert len(shown) > 60
    for attributes, text in shown:
        value = value_at(report, attributes["data-source"])
        if "data-format" not in attributes:
            assert text == value
        elif value is None:
            assert (text, attributes["value"]) == ("–", "")
        else:
            number, tolerance, percent = read_number(text)
            scale = 100 if percent or attributes["data-format"] in IN_HUNDREDTHS else 1
            if attributes["data-format"] == "threshold":
                assert number <= value < number + 1e-7, (attributes, text)
            else:
                assert number == pytest.approx(scale * value, abs=tolerance * 1.0001), (attributes, text)
            assert float(attributes["value"]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("scale", [1, 3e-4, 1e-9])
def test_a_threshold_on_the_page_reproduces_the_numbers_beside_it(predictions, evaluation, scale):
    table = predictions(2000)
    scores = np.stack(list(table["scores"])) * np.float32([1, scale, 1, 1])
    _, html = build(table.assign(scores=list(scores)), evaluation())
    sourced = [(attributes, text) for attributes, text in Page(html).sourced if "data-format" in attributes]
    shown = {attributes["data-source"]: read_number(text)[0] for attributes, text in sourced}
    assert all(
        re.fullmatch(r"[01]\.\d{7}", text) for attributes, text in sourced if attributes["data-format"] == "threshold"
    )
    in_csv = np.array([float(f"{score:.7f}") for score in scores[:, 1]])
    crystals = (table["label"] == 1).to_numpy()
    for row in ("chosen", *(f"rows.{number}" for number in range(5))):
        looked_at = in_csv >= shown[f"thresholds.{row}.threshold"]
        assert 100 * looked_at[crystals].mean() >= shown[f"thresholds.{row}.wanted"] - 1e-9
        if scale == 1:
            assert looked_at.sum() - looked_at[crystals].sum() == shown[f"thresholds.{row}.false_positives.found"]
    for number in range(2):
        point = f"roc.0.operating.{number}"
        assert 100 * (in_csv >= shown[f"{point}.threshold"])[crystals].mean() >= shown[f"{point}.wanted"] - 1e-9


def test_a_bound_is_shown_with_all_its_digits(predictions, evaluation):
    _, html = build(predictions(60), evaluation(thresholds={"accuracy": 0.97825, "recall/Crystals": 0.7}))
    shown = {attributes["data-source"]: text for attributes, text in Page(html).sourced}
    assert [shown[f"verdict.thresholds.{number}.bound"] for number in range(2)] == ["0.97825", "0.7"]


def test_nothing_else_on_the_page_has_a_digit(written):
    _, html = written
    assert [text for text in Page(html).loose if re.search(r"\d", text)] == []


def test_the_page_has_every_number_that_matters(predictions, evaluation):
    report, html = build(predictions(300), evaluation(), decision=DECISION)
    sources = {attributes["data-source"] for attributes, _ in Page(html).sourced}
    for row in range(4):
        for column in range(4):
            for what in ("count", "share", "paper", "difference"):
                assert f"confusion.rows.{row}.cells.{column}.{what}" in sources
    for kind, part in enumerate(report["slices"]):
        for row in range(len(part["rows"])):
            for what in ("share", "low", "high", "count"):
                assert {f"slices.{kind}.rows.{row}.{of}.{what}" for of in ("accuracy", "target")} <= sources
    for what in ("scores", "calibrated", "cross_fitted"):
        assert f"calibration.ece.{what}" in sources
    assert {
        "accuracy.share",
        "target.recall.share",
        "roc.0.auc",
        "roc.1.paper_auc",
        "about.data_fingerprint",
    } <= sources
    assert {f"thresholds.rows.{row}.threshold" for row in range(5)} <= sources
    assert {f"disagreements.{row}.label_score" for row in range(12)} <= sources
    assert {"verdict.reasons.0", "verdict.checks.0.difference", "verdict.champion.version"} <= sources


def test_the_page_is_self_contained_and_describes_its_pictures(written):
    _, html = written
    read = Page(html)
    assert all(link.startswith(("#", "data:image/")) for link in read.links)
    assert not re.search(r"https?://", re.sub(r"data:[^\"]*", "", html))
    assert not any(tag == "script" for tag, _ in read.tags)
    assert all(image["alt"] for image in read.images)
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(ids)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in read.tags
    assert all("scope" in attributes for tag, attributes in read.tags if tag == "th")


def test_the_learning_curve_shows_the_step_that_was_kept(predictions, evaluation):
    report, html = build(predictions(60), evaluation(), training=TRAINING)
    assert report["training"]["points"] == TRAINING["history"]
    assert {"training.best_step", "training.steps"} <= {
        attributes["data-source"] for attributes, _ in Page(html).sourced
    }
    assert "Training gained nothing" not in html
    assert "training" in figures(report)
    _, html = build(predictions(60), evaluation(), training={**TRAINING, "best_step": 0})
    assert "Training gained nothing" in html


def test_a_set_whose_evaluation_images_chose_the_weights_says_so(predictions, evaluation):
    warning = "Expect less on new images"
    assert warning not in build(predictions(60), evaluation())[1]
    report = numbers(predictions(60), evaluation(), ReportOptions(), about={**ABOUT, "validation": "eval"})
    html = page(report, figures(report), {})
    assert warning in html and "temperature fitted on these images" in html


def test_text_from_elsewhere_is_escaped(predictions, evaluation):
    _, html = build(predictions(60), evaluation(), decision=DECISION)
    assert "5.1 points &lt;really&gt;" in html


def test_figures_depend_on_the_report_alone_and_are_reproducible(predictions, evaluation):
    report, _ = build(predictions(300), evaluation())
    drawn = figures(report)
    assert set(drawn) == {"roc", "calibration", "thresholds"}
    assert drawn == figures(report)
    for svg in drawn.values():
        assert "prefers-color-scheme:dark" in svg
        assert "var(--first, #0b7285)" in svg
    assert list(CLASSES) == report["classes"]
