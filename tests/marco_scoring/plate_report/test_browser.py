"""The report of a drawn 96-well plate at three time points, in headless Chromium."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests import short_network
from tests.marco_scoring.plate_report import drawn_plate

pytestmark = pytest.mark.slow


def tiny_network(files):
    """A network with random weights whose logits are scaled so that every class is predicted for some of `files`."""
    import keras
    import numpy as np
    import tensorflow as tf

    from marco_model.inception_v3 import inception_v3
    from marco_model.preprocessing import evaluation_batch

    keras.utils.set_random_seed(3)
    with short_network.cut():
        network = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1, num_classes=4)
    images = evaluation_batch(tf.constant([file.read_bytes() for file in files]), 151)
    logits = np.asarray(network(images, training=False))
    kernel, bias = (weight for weight in network.weights if weight.shape[-1:] == (4,))
    scale = 1.5 / logits.std(axis=0)
    kernel.assign(kernel * scale)
    bias.assign((bias - logits.mean(axis=0)) * scale)
    return network


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report's path and the rows of scores.csv; a tiny network scores, at temperature 0.5."""
    from marco_model.classifier import export
    from marco_model.labels import CLASSES
    from marco_model.load import open_classifier
    from marco_scoring.plate_report import Options, predict_with_report

    folder = tmp_path_factory.mktemp("browser")
    files = drawn_plate.write(folder / "plate", 96)
    for file in files:  # Enlarged, which is faster than to draw more pixels, so that none is too small to judge.
        ImageOps.scale(Image.open(file), 2.2).save(file)
    (folder / "plate" / "empty.jpg").touch()
    network = tiny_network(files[::6])
    export(network, folder / "model", classes=CLASSES, input_size=151, temperature=0.5, metadata={"name": "tiny"})
    report = folder / "plate.html"
    outcome = predict_with_report(
        open_classifier(folder / "model"),
        [*files, folder / "plate" / "empty.jpg"],
        folder / "scores.csv",
        report,
        Options(["marco", "explain"], explain=2, samples=2),
    )
    assert (sum(outcome.by_class.values()), outcome.failed) == (288, 1)
    assert min(outcome.by_class.values()) > 0
    assert report.stat().st_size < 15e6
    with (folder / "scores.csv").open(newline="") as file:
        return report, list(csv.DictReader(file))


@pytest.fixture(params=[1280, 390])
def page(made, visit, request):
    """The report opened from its file, as wide as a desktop and as a phone."""
    return visit(made[0], request.param)


def at(rows, date):
    return {row["well"]: row for row in rows if date in row["path"]}


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label')") or ""


def test_the_map_shows_scores_and_steps_through_time(made, page):
    rows = made[1]
    assert page.locator(".map .drop").count() == 96
    # The latest images come first; here they are those of the last date.
    for number, date in enumerate((drawn_plate.DATES[-1], *drawn_plate.DATES)):
        page.locator(".times .segmented button").nth(number).click()
        labels = [drop.get_attribute("aria-label") for drop in page.locator(".map .drop").all()]
        scores = {label.split(":")[0]: float(re.search(r"crystals ([\d.]+)", label)[1]) for label in labels}
        expected = {well: float(row["crystals"]) for well, row in at(rows, date).items()}
        assert scores == pytest.approx(expected, abs=0.0051)
        classes = {label.split(":")[0]: re.search(r": (\w+),", label)[1] for label in labels}
        assert classes == {well: row["class"] for well, row in at(rows, date).items()}
    page.get_by_role("button", name="Images", exact=True).click()
    assert "data:image/jpeg" in page.locator(".map .drop").first.evaluate("one => one.style.backgroundImage")


def test_time_points_are_played_to_the_end(made, page):
    page.clock.install(time=0)
    page.clock.pause_at(1_000_000)
    button = page.locator(".times .play")

    def shown(milliseconds):
        page.clock.run_for(milliseconds)
        pressed = page.locator(".times .segmented button[aria-pressed=true]").get_attribute("aria-label")
        return " ".join(pressed.split()[:2]), button.inner_text()

    button.click()
    assert [shown(1000), shown(1000)] == [("2 Mar", "Pause"), ("5 Mar", "Pause")]
    button.click()
    assert shown(5000) == ("5 Mar", "Play")
    button.click()
    assert [shown(1000), shown(5000)] == [("12 Mar", "Pause"), ("12 Mar", "Play")]
    button.click()
    page.locator(".times .segmented button").last.click()
    assert shown(5000) == ("12 Mar", "Play")
    button.click()
    assert shown(5000) == ("12 Mar", "Play")


def test_keyboard_and_click_open_an_image_and_step_through_it(made, page):
    page.locator(".map .drop").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "ArrowDown", "Home"):
        page.keyboard.press(key)
    assert focused(page).startswith("B1:")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.locator("h2").inner_text().startswith("B2")
    assert dialog.locator("img").first.evaluate("one => one.decode().then(() => one.naturalWidth)") > 190
    row = at(made[1], "2026-03-12")["B2"]
    shown = [float(text) for text in dialog.locator(".bars b").all_inner_texts()]
    assert shown == pytest.approx(
        [float(row[name]) for name in ("clear", "crystals", "other", "precipitate")], abs=0.0051
    )
    page.keyboard.press("ArrowUp")
    assert "5 Mar 2026, day 3" in dialog.inner_text()
    page.keyboard.press("ArrowRight")
    assert dialog.locator("h2").inner_text().startswith("B3")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert focused(page).startswith("B2:")
    page.locator(".map .drop").nth(95).click()
    assert dialog.locator("h2").inner_text().startswith("H12")
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="hidden")


def test_the_list_is_sorted_filtered_and_searched(made, page):
    rows = made[1]
    last = at(rows, "2026-03-12")

    def listed():
        return [Path(row.get_attribute("data-path")).name.split("_")[1] for row in page.locator("tbody tr").all()]

    def ranked(wells):
        return sorted(wells, key=lambda well: -float(last[well]["crystals"]))

    assert listed() == ranked(last)[:40]
    page.locator("#browse > .more").click()
    assert listed() == ranked(last)[:80]
    page.locator("th button", has_text="Well").click()
    assert listed()[:3] == ["A1", "A2", "A3"]
    page.locator("th button", has_text="Crystals").click()
    page.locator("th button", has_text="Crystals").click()
    assert listed() == ranked(last)[::-1][:40]
    page.locator("#search").fill("b1")
    assert listed() == ["B1"]
    page.locator("#time").select_option("all")
    assert listed() == ["B1"] * 3
    page.locator("#search").fill("2026-03-05")
    assert page.locator("#found").inner_text() == "96 of 288 images"
    page.locator("#search").fill("")
    page.locator("#time").select_option("latest")
    name = max(
        {row["class"] for row in last.values()}, key=lambda name: sum(row["class"] == name for row in last.values())
    )
    page.locator("#class").select_option(label=name)
    count = sum(row["class"] == name for row in last.values())
    assert page.locator("#found").inner_text() in (f"{count} of 96 images", "96 images")
    page.locator("#class").select_option(label="all")
    page.locator("#new").check()
    before = [*at(rows, "2026-03-02").values(), *at(rows, "2026-03-05").values()]
    had = {row["well"] for row in before if row["class"] == "Crystals"}
    new = {well for well, row in last.items() if row["class"] == "Crystals" and well not in had}
    assert set(listed()) == new
    assert page.locator("[data-count=new]").inner_text() == str(len(new))


def test_drops_over_time_show_every_image_with_its_score(made, page):
    page.get_by_role("button", name="Over time").click()
    page.locator("#order").select_option("well")
    page.locator("#search").fill("c7")
    strip = page.locator("#strips article")
    assert strip.count() == 1
    scores = [float(row["crystals"]) for row in made[1] if row["well"] == "C7"]
    assert [float(text) for text in strip.locator(".frame b").all_inner_texts()] == pytest.approx(scores, abs=0.0051)
    assert strip.locator(".point").count() == 3
    strip.locator(".frame").first.click()
    assert "2 Mar 2026, day 0" in page.locator("dialog").inner_text()


def test_overlays_and_calibrated_probabilities_are_at_hand(made, page):
    best = max(made[1], key=lambda row: float(row["crystals"]))
    page.locator("#time").select_option("all")
    page.locator("tbody .thumb").first.click()
    dialog = page.locator("dialog")
    assert Path(best["path"]).name in dialog.inner_text()
    plain = dialog.locator("img").first.get_attribute("src")
    dialog.get_by_role("button", name="Show what speaks for crystals").click()
    assert dialog.locator("img").first.get_attribute("src") != plain
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    dialog.locator("summary").click()
    assert dialog.locator("code").inner_text().startswith("marco explain --class Crystals ")
    page.keyboard.press("Escape")
    page.locator("#values button").nth(1).click()
    images = json.loads(page.locator("#data").inner_text() or page.locator("#data").text_content())["images"]
    highest = max(image["probability"] for image in images)
    assert float(page.locator("tbody .score").first.inner_text()) == pytest.approx(highest, abs=0.0051)
