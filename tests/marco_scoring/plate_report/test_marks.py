"""What people do with a plate page in headless Chromium: choose plates, mark drops, and take the marks away."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from marco_data import importing, label_tables
from marco_data.overlay import read_overlay
from marco_data.relabelling.merging import merge_sheets
from marco_scoring.plate_report import Options, predict_with_report
from tests.browser import shares_storage
from tests.marco_scoring.plate_report.test_page import Scripted

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow
LONG = "a-name-of-ninety-characters-" + "x" * 58 + ".png"
FORMULA = "=HYPERLINK(1).png"


def draw(path, red, green=0, blue=0):
    """Scripted reads the scores from the colour: red is crystals, green other, blue clear."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (256, 208), (red, green, blue))
    picture.paste((255, 255, 255), (0, 104, 256, 208))
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of `plate.html`: plates 7k2b with three drops a well, of which one was not imaged last, and 9m1c."""
    folder = tmp_path_factory.mktemp("marks")
    files = [
        draw(folder / "a" / f"7k2b_{well}-{drop}_{date}_VIS_{number}.png", red, blue=drop * 9 + len(well) + number)
        for number, date in ((1, "2026-03-02"), (2, "2026-03-09"))
        for well, reds in (("A1", (200, 20, 30)), ("B12", (10, 250, 40)))
        for drop, red in enumerate(reds, 1)
        if (well, drop, number) != ("B12", 2, 2)
    ]
    files += [draw(folder / "b" / f"9m1c_A{column}_VIS_1.png", 0, blue=100 + column) for column in (1, 2)]
    files += [draw(folder / LONG, 0, 200), draw(folder / FORMULA, 230, 5)]
    black = folder / "black.png"
    Image.new("RGB", (256, 208), (15, 0, 0)).save(black)
    predict_with_report(Scripted(), [*files, black], folder / "scores.csv", folder / "plate.html", Options(["marco"]))
    return folder


def rows(page):
    return [Path(row.get_attribute("data-path")).name for row in page.locator("tbody tr").all()]


def saved(page, kind, folder):
    """Returns the rows of a file that the page saves, and its path."""
    with page.expect_download() as download:
        page.locator(f"[data-save={kind}]").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file)), path


@pytest.mark.parametrize("width", [1280, 390])
def test_every_drop_is_shown_by_its_latest_image(made, visit, width):
    page = visit(made / "plate.html", width)
    assert page.locator("h1").inner_text() == "Drop images"
    # Without marks it is a few lines.
    assert page.locator("#marks").bounding_box()["height"] < 400
    head = page.locator(".page-head").inner_text()
    assert "16 images: 13 show 8 drops on 2 plates at up to 2 time points, 3 have no well" in head.replace("\n", " ")
    labels = [drop.get_attribute("aria-label") for drop in page.locator(".map .drop").all()]
    assert len(labels) == 6 and any(re.match(r"B12 drop 2: Crystals", label) for label in labels)
    page.locator(".times .segmented button").last.click()
    labels = [drop.get_attribute("aria-label") for drop in page.locator(".map .drop").all()]
    assert "B12 drop 2: no image at this time point" in labels
    page.locator("#search").fill("7k2b")
    assert rows(page)[0] == "7k2b_B12-2_2026-03-02_VIS_1.png" and len(rows(page)) == 6
    page.locator("#search").fill("")
    # A black picture comes last, whatever its score and in either order.
    assert rows(page)[-1] == "black.png"
    page.locator("th button", has_text="Crystals").click()
    assert rows(page)[-1] == "black.png" and "black" in page.locator("tbody tr").last.inner_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_plates_are_chosen_and_pictures_are_large(made, visit, width):
    page = visit(made / "plate.html", width)
    chooser = page.locator("#chooser button")
    assert [button.locator("b").inner_text() for button in chooser.all()] == ["7k2b", "9m1c"]
    assert "2 of 6 drops with crystals" in chooser.first.inner_text()
    page.get_by_role("button", name="Images", exact=True).click()
    sizes = [drop.bounding_box() for drop in page.locator(".map .drop").all()]
    assert min(size["width"] for size in sizes) >= 70 and min(size["height"] for size in sizes) >= 50
    chooser.nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator(".plate h2").inner_text() == "Plate 9m1c"
    assert page.locator(".map .drop").count() == 2
    assert chooser.nth(1).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Over time").click()
    frames = [frame.bounding_box()["width"] for frame in page.locator("#strips .frame").all()]
    assert len(frames) == 13 and max(frames) - min(frames) < 1


def test_marks_go_out_as_sheets_and_come_back_as_an_overlay(made, visit, tmp_path):
    page = visit(made / "plate.html")
    dialog = page.locator("dialog")
    assert page.locator("[data-save=hits]").is_disabled()
    # A click anywhere in a row opens the image; keys do the rest.
    page.locator("tbody tr", has_text="B12 drop 2").locator(".column-well").click()
    assert dialog.locator("h2").inner_text().startswith("B12 drop 2")
    for key in ("s", "4", "n"):
        page.keyboard.press(key)
    page.keyboard.type('=needles, "1" 2 s\n')
    page.keyboard.press("Escape")
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.locator("tbody tr", has_text="A1 drop 1").locator(".thumb").click()
    dialog.get_by_role("button", name="Crystals").click()
    page.keyboard.press("Escape")
    page.locator("#unplaced .frame", has_text="HYPERLINK").click()
    page.keyboard.press("1")
    dialog.locator(".star").click()
    assert dialog.locator(".star").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    page.locator("#rater").fill("anna")
    assert page.locator("#mark-counts").inner_text() == "2 favourites · 1 note · 3 classes of yours, 2 corrected"

    hits, _ = saved(page, "hits", tmp_path)
    assert [list(row.values())[:5] for row in hits] == [["7k2b", "B12", "2", "", "2026-03-02"], ["", "", "", "", ""]]
    assert [(row["class"], row["note"]) for row in hits] == [("Precipitate", '\'=needles, "1" 2 s'), ("Clear", "")]
    assert 0.9 < float(hits[0]["score"]) <= 1 and hits[1]["file"].endswith(FORMULA)
    marked, _ = saved(page, "marks", tmp_path)
    assert [(row["class"], row["your_class"], row["favourite"]) for row in marked] == [
        ("Crystals", "Crystals", ""), ("Crystals", "Precipitate", "yes"), ("Crystals", "Clear", "yes"),
    ]  # fmt: skip

    answers, sheet = saved(page, "sheet", tmp_path)
    assert [(row["label"], row["rater"]) for row in answers] == [
        ("Crystals", "anna"), ("Precipitate", "anna"), ("Clear", "anna"),
    ]  # fmt: skip
    # The same pictures under other names, filed as the classifier sees them, in the shards of a set.
    for number, row in enumerate(answers):
        (tmp_path / "set" / row["predicted"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(row["filename"], tmp_path / "set" / row["predicted"] / f"{number}.png")
    draw(tmp_path / "set" / "Clear" / "other.png", 1)
    importing.import_images(label_tables.from_folder(tmp_path / "set"), tmp_path / "shards")
    report, read = merge_sheets([str(sheet)], "", tmp_path / "overlay.csv", data=[str(tmp_path / "shards")])
    assert (report["exported"], report["splits"]["all"]["changed"], read.unmatched) == (3, 2, [])
    overlay = read_overlay(str(tmp_path / "overlay.csv"))
    assert sorted(answer.label for answer in overlay.values()) == ["Clear", "Crystals", "Precipitate"]
    assert {answer.rater for answer in overlay.values()} == {"anna"}
    # The sheet is a table of labels too, for pictures that are in no shards yet.
    assert len(label_tables.from_csv(sheet, root=Path("/")).images) == 3


def test_the_browser_keeps_marks_also_for_a_page_made_again_and_shares_them_between_tabs(made, visit, tmp_path):
    again = made / "again.html"
    shutil.copy(made / "plate.html", again)
    for _ in range(5):
        page = visit(made / "plate.html")
        other = visit(again, context=page.context)
        if shares_storage(page, other):
            break
    star = "tbody tr:has-text('A1 drop 2') .star"
    page.locator(star).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#mark-counts")).to_contain_text("1 favourite")
    page.locator("#marked").select_option("starred")
    assert len(rows(page)) == 1
    other.reload()
    # A browser hands what one tab has kept to another after a moment.
    expect(other.locator(star)).to_have_attribute("aria-pressed", "true")
    other.locator(star).click()
    expect(page.locator("#mark-counts")).to_have_text("None yet.")
    expect(page.locator("tbody tr")).to_have_count(0)
    other.locator(".map .drop").first.focus()
    other.keyboard.press("s")
    expect(other.locator("#mark-counts")).to_contain_text("1 favourite")
    other.once("dialog", lambda question: question.accept())
    other.locator("#forget").click()
    expect(other.locator("#mark-counts")).to_have_text("None yet.")
    # The page's policy forbids Playwright's own way to wait, which evaluates text in the page again and again.
    for _ in range(100):
        if other.evaluate("localStorage.length") == 0:
            break
        other.wait_for_timeout(50)
    assert other.evaluate("localStorage.length") == 0


def test_a_browser_that_keeps_nothing_is_named(made, visit, tmp_path):
    context = visit(made / "plate.html").context
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })")
    page = visit(made / "plate.html", context=context)
    page.locator("tbody .star").first.click()
    assert "save your marks before you close it" in page.locator("#not-kept").inner_text()
    assert len(saved(page, "hits", tmp_path)[0]) == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_a_dark_screen_gets_a_dark_page(made, visit, width):
    page = visit(made / "plate.html", width, color_scheme="dark")

    def lightness(selector, of="backgroundColor"):
        colour = page.locator(selector).first.evaluate(f"one => getComputedStyle(one).{of}")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert lightness("body") < 40 and lightness("#browse") < 60 and lightness("body", "color") > 200
    no_score, best = (f".drop[aria-label^='{name}']" for name in ("A1 drop 2", "B12 drop 2"))
    assert lightness(no_score) < 100 < lightness(best)
    page.emulate_media(color_scheme="light")
    assert lightness("body") > 200
    page.wait_for_timeout(600)  # The colours of wells change slowly.
    assert lightness(no_score) > 150 > lightness(best)
