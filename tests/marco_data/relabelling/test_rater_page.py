"""The page on which experts label, in headless Chromium: answered by keys, saved, loaded again, merged."""

import time
from pathlib import Path

import pytest
from PIL import Image

from marco_data.relabelling.sheets import ExportedImage, Item, read_sheets, write_page
from marco_model.labels import CLASSES
from tests.browser import shares_storage

pytestmark = pytest.mark.slow


def open_page(context, url):
    """Opens `url` in a page that shares its storage with others."""
    for _ in range(5):
        opened, other = context.new_page(), context.new_page()
        for page in (opened, other):
            page.goto(url)
        shared = shares_storage(opened, other)
        other.close()
        if shared:
            return opened
        opened.close()
    raise AssertionError("five pages in turn could store nothing")


@pytest.fixture
def page(browser, tmp_path):
    items = [Item(number, 9007199254740993 + number, f"images/{number}.png") for number in range(3)]
    (tmp_path / "images").mkdir()
    for item in items:
        Image.new("RGB", (40, 30), (90 * item.row, 90, 90)).save(tmp_path / item.file)
    write_page(tmp_path / "index.html", items, CLASSES, ["ann", "anna", "ben"])
    context = browser.new_context()
    problems = []
    context.on("weberror", lambda event: problems.append(str(event.error)))
    context.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    context.on(
        "request", lambda sent: problems.append(sent.url) if not sent.url.startswith(("file:", "blob:")) else None
    )
    opened = open_page(context, (tmp_path / "index.html").as_uri())
    yield opened, tmp_path, items
    assert not problems
    context.close()


def save(opened, folder, press):
    with opened.expect_download() as download:
        press()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def shows(opened, count):
    from playwright.sync_api import expect

    expect(opened.locator("#count")).to_contain_text(count)


def shows_after_reload(opened, count):
    """Chromium passes a write to its storage without waiting, and may reload into another process: so reload again.

    What was not written stays so however often the page is loaded.
    """
    deadline = time.monotonic() + 10
    while True:
        opened.reload()
        if count in opened.inner_text("#count") or time.monotonic() > deadline:
            return shows(opened, count)


def test_keys_label_and_the_saved_sheet_merges(page):
    opened, folder, items = page
    opened.fill("#rater", "ben")
    opened.click("#image")
    for key in ("2", "ArrowRight", "4", "ArrowLeft", "ArrowLeft"):
        opened.keyboard.press(key)
    opened.fill("#note", '=1+1, "fused"')
    opened.locator("#note").blur()
    shows(opened, "2 answered")
    path = save(opened, folder, lambda: opened.keyboard.press("s"))
    assert path.name == "sheet-ben.csv"
    assert "'=1+1" in path.read_text()
    images = {item.image_id: ExportedImage("train", "Clear", "Clear") for item in items}
    answers = read_sheets([str(path)], images, CLASSES)
    labels = {number: answer.label for number, answer in answers.by_rater["ben"].items()}
    assert labels == {items[0].image_id: "Crystals", items[2].image_id: "Precipitate"}
    assert [line[1] for line in answers.unanswered] == [items[1].image_id]

    opened.evaluate("localStorage.clear()")
    shows_after_reload(opened, "0 answered")
    opened.set_input_files("#load", path)
    shows(opened, "2 answered")
    again = save(opened, folder, lambda: opened.click("#save"))
    assert Path(again).read_text() == path.read_text()


def test_answers_outlive_a_closed_page_and_all_images_are_shown(page):
    opened, _, items = page
    opened.keyboard.press("3")
    shows(opened, "1 answered")
    shows_after_reload(opened, "1 answered")
    opened.keyboard.press("g")
    cells = opened.locator("#grid button")
    assert cells.count() == len(items)
    assert cells.nth(0).inner_text().strip() == "1 Other"
    cells.nth(0).click()
    opened.keyboard.press("Backspace")
    shows(opened, "0 answered")


def test_two_open_pages_keep_each_others_answers(page):
    first, folder, _ = page
    second = open_page(first.context, first.url)
    first.keyboard.press("3")
    shows(second, "1 answered")
    second.keyboard.press("ArrowRight")
    second.keyboard.press("2")
    shows(first, "image 2 of 3, 2 answered")
    first.fill("#rater", "anna")
    first.locator("#rater").blur()
    path = save(first, folder, lambda: first.click("#save"))
    assert [line.split(",")[2] for line in path.read_text().splitlines()[1:]] == ["Other", "Crystals", ""]


def test_two_raters_at_one_computer_do_not_see_each_other(page):
    opened, folder, _ = page
    opened.keyboard.press("3")
    shows(opened, "1 answered")
    for name, count in (("anna", 1), ("ben", 0), ("Anna", 1)):
        opened.fill("#rater", name)
        opened.locator("#rater").press("Enter")
        shows(opened, f"{count} answered")
    shows_after_reload(opened, "1 answered")
    assert save(opened, folder, lambda: opened.click("#save")).read_text().splitlines()[1].split(",")[2:4] == [
        "Other",
        "anna",
    ]


def test_a_name_counts_when_it_is_complete_and_not_at_every_letter(page):
    opened, folder, _ = page
    opened.keyboard.press("3")
    opened.locator("#rater").press_sequentially("anna")
    opened.locator("#rater").press("Enter")
    shows(opened, "1 answered")
    opened.fill("#rater", "")
    opened.locator("#rater").press_sequentially("ann")
    opened.locator("#rater").blur()
    shows(opened, "0 answered")
    opened.locator("#rater").fill("ben")
    assert save(opened, folder, lambda: opened.evaluate("save()")).name == "sheet-ben.csv"
    shows(opened, "0 answered")


def load(opened, path, accept=False):
    """Loads a sheet and returns the message of the page; `accept` answers its questions."""
    from playwright.sync_api import expect

    messages = []

    def answer(dialog):
        messages.append(dialog.message)
        dialog.accept() if accept else dialog.dismiss()

    opened.on("dialog", answer)
    opened.set_input_files("#load", path)
    expect(opened.locator("#load")).to_have_value("")
    opened.remove_listener("dialog", answer)
    return messages


def labels(opened):
    return opened.evaluate("settings.items.map(([image]) => answer(image).label)")


def test_loading_a_sheet_takes_no_answer_back(page):
    opened, folder, items = page
    empty, old = folder / "empty.csv", folder / "old.csv"
    head = "image_id,file,label,rater,date,note\n"
    empty.write_text(head + "".join(f"{item.image_id},{item.file},,anna,,\n" for item in items))
    old.write_text(
        f"{head}{items[0].image_id},,Clear,anna,2026-01-02,\n{items[1].image_id},,,anna,,\n"
        f"{items[2].image_id},,Other,anna,2026-01-02,seen\n"
    )
    opened.fill("#rater", "anna")
    opened.click("#image")
    for key in "22":
        opened.keyboard.press(key)
    assert load(opened, empty) == ["empty.csv has no answers yet. Nothing was loaded."]
    assert labels(opened) == ["Crystals", "Crystals", ""]
    (question,) = load(opened, old)
    assert question.startswith("1 of your answers differ in old.csv")
    assert labels(opened) == ["Crystals", "Crystals", "Other"]
    load(opened, old, accept=True)
    assert labels(opened) == ["Clear", "Crystals", "Other"]
    assert load(opened, old) == []


def test_a_sheet_of_another_rater_is_that_raters(page):
    opened, folder, items = page
    opened.fill("#rater", "carl")
    opened.click("#image")
    opened.keyboard.press("1")
    (folder / "ben.csv").write_text(f"image_id,label,rater,date\n{items[0].image_id},Other,BEN,2026-01-02\n")
    assert load(opened, folder / "ben.csv") == []
    assert (opened.input_value("#rater"), labels(opened)) == ("ben", ["Other", "", ""])
    opened.fill("#rater", "carl")
    opened.locator("#rater").blur()
    assert labels(opened) == ["Clear", "", ""]


@pytest.mark.parametrize("comma", [";", "\t"])
def test_a_sheet_that_a_spreadsheet_saved_is_loaded(page, comma):
    opened, folder, items = page
    lines = ["\ufeffImage_ID,file,Label,rater,date,note", f"{items[1].image_id},,crystals,anna,2026-01-02,", ",,,,,"]
    (folder / "sheet.csv").write_text("\r\n".join(lines).replace(",", comma), encoding="utf-8")
    assert load(opened, folder / "sheet.csv") == []
    assert labels(opened) == ["", "Crystals", ""]
    assert opened.input_value("#rater") == "anna"


def test_a_sheet_with_ids_as_excel_shows_them_is_loaded_by_its_files(page):
    opened, folder, items = page
    lines = ["sep=;", "image_id;file;label"]
    lines += [f"{float(item.image_id):.5E};{item.file};Crystals".replace(".", ",", 1) for item in items[:2]]
    lines += [f"1,5E+03;{items[2].file};Crystals"]  # The id of another image.
    (folder / "sheet.csv").write_text("\r\n".join(lines))
    assert load(opened, folder / "sheet.csv") == []
    assert labels(opened) == ["Crystals", "Crystals", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column image_id, label"),
        ("image_id,class\n9007199254740993,Clear\n", "has no column label"),
        ("image_id,label\n7,Clear\n", "has no line for an image of this page"),
        ("image_id,label\n9007199254740993,Crystal\n", "Crystal was skipped; the classes are Clear, Crystals"),
    ],
)
def test_a_sheet_that_cannot_be_loaded_is_reported(page, text, message):
    opened, folder, _ = page
    (folder / "sheet.csv").write_text(text)
    (shown,) = load(opened, folder / "sheet.csv")
    assert message in shown and labels(opened) == ["", "", ""]
