import csv
import datetime
import errno
import io
import json
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from marco_model.errors import InputError
from marco_scoring import plate_report
from marco_scoring.plate_report import Options, predict_with_report, thumbnail, usual_size
from marco_scoring.plates import crystal_classes
from tests.fakes.classifier import Scripted as ScriptedClassifier

ODD = "<img src=x onerror=alert(1)>&\"'{{ 7*7 }}`$(rm) \u2028.png"


class Scripted(ScriptedClassifier):
    """A classifier that reads its scores from the colour of the image's first pixel."""

    classes = ("Clear", "Crystals", "Other", "Precipitate")
    name = "scripted <b>"
    temperature = 0.5

    def score(self, images):
        if not images:
            return np.zeros((0, 4), np.float32)
        colours = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[0, 0] for image in images]
        logits = np.array([[colour[2], colour[0], colour[1], 128] for colour in colours], np.float32) / 40
        return softmax(logits, axis=1)


class Page(HTMLParser):
    """The content of a page: tags with their attributes, and the text of each element with an id or data attribute."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self.text = [], "", ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = "data" if dict(attributes).get("id") == "data" else tag

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "data":
            self.data += data
        elif self._in not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plate")
    names = [
        "03c3_A1-1_2026-03-02_VIS_1.png",
        "03c3_A1-1_2026-03-05_VIS_2.png",
        "03c3_A1-2_2026-03-02_VIS_1.png",
        "03c3_A1-2_2026-03-05_VIS_2.png",
        "X0000056450155200509052032.png",
        "X0000056451536200509052232.png",
        "drop 1.png",
        ODD,
    ]
    colours = [(0, 0, 250), (250, 0, 0), (250, 9, 9), (240, 9, 9), (9, 250, 9), (1, 2, 3), (200, 10, 90), (90, 90, 90)]
    for name, colour in zip(names, colours, strict=True):
        picture = Image.new("RGB", (256, 208), colour)
        # So that it is neither black nor blank nor too small.
        picture.paste((255, 255, 255), (0, 104, 256, 208))
        picture.save(folder / name)
    broken = folder / f"broken {ODD}"
    broken.write_text("no image")
    files = [folder / name for name in names] + [broken]
    report = folder / "out" / "plate.html"
    command = ["marco", "explain", "--output", "explained"]
    outcome = predict_with_report(Scripted(), files, folder / "scores.csv", report, Options(command), 3)
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return outcome, rows, report.read_text(encoding="utf-8")


def test_every_number_is_that_of_scores_csv(made):
    outcome, rows, text = made
    page = Page(text)
    images = json.loads(page.data)["images"]
    assert [image["path"] for image in images] == [row["path"] for row in rows]
    for image, row in zip(images, rows, strict=True):
        columns = [float(row[name.lower()]) for name in Scripted.classes]
        assert image["scores"] == columns
        assert image["score"] == columns[1]
        assert Scripted.classes[image["class"]] == row["class"]
        assert image["drop"] == row["drop"]
        squared = np.square(columns)  # The softmax of twice the logits.
        assert image["probabilities"] == pytest.approx(squared / squared.sum(), abs=1e-6)
        assert image["probability"] == image["probabilities"][1]
    counted = {dict(tag)["data-count-of"] for name, tag in page.tags if "data-count-of" in tag}
    assert counted == set(outcome.by_class)
    for name, count in outcome.by_class.items():
        assert f'data-count-of="{name}">{count}<' in text
        assert count == sum(row["class"] == name for row in rows)


def test_plates_wells_and_time_points(made):
    data = json.loads(Page(made[2]).data)
    assert [(plate["name"], len(plate["rows"]), plate["columns"]) for plate in data["plates"]] == [
        ("03c3", 8, 12),
        ("X000005645", 32, 48),
    ]
    assert data["plates"][0]["drops"] == ["1", "2"]
    assert [time["label"] for time in data["plates"][0]["times"]] == ["2 Mar 2026", "5 Mar 2026"]
    assert [image["plate"] for image in data["images"]] == [0, 0, 0, 0, 1, 1, None, None]
    assert [image["time"] for image in data["images"][:6]] == [0, 1, 0, 1, 0, 0]
    assert [image["at"] for image in data["images"][3:6]] == [[0, 0], [3, 10], [31, 47]]
    # Drop 1 was clear first; drop 2 had its crystals before.
    assert [image["new"] for image in data["images"]] == [False, True] + [False] * 6
    # The latest images of two drops of 03c3, and the red image without a well.
    assert [image["latest"] for image in data["images"]] == [False, True] * 2 + [True] * 4
    assert re.search(r'data-count="hits">(\d+)', made[2]).group(1) == "2"
    assert re.search(r'data-count="loose-hits">(\d+)', made[2]).group(1) == "1"
    assert "8 images: 6 show 4 drops on 2 plates at up to 2 time points, 2 have no well," in " ".join(
        Page(made[2]).text.split()
    )
    assert re.search(r'data-count="new">(\d+)', made[2]).group(1) == "1"


def test_a_flagged_image_is_no_hit_and_comes_last(tmp_path):
    files = []
    for name, side, colour in (("small", 100, (250, 0, 0)), ("black", 256, (14, 0, 0)), ("blank", 256, (250, 0, 0))):
        files.append(tmp_path / f"{name}.png")
        Image.new("RGB", (side, side), colour).save(files[-1])
    predict_with_report(Scripted(), files, tmp_path / "s.csv", tmp_path / "plate.html", Options(["marco"]))
    text = (tmp_path / "plate.html").read_text(encoding="utf-8")
    images = json.loads(Page(text).data)["images"]
    assert [(image["flag"], image["hit"]) for image in images] == [
        ("too small", False), ("black", False), ("blank", False)
    ]  # fmt: skip
    assert re.search(r'data-count="loose-hits">(\d+)', text).group(1) == "0"


def test_an_image_unlike_those_of_training_keeps_its_rank_and_is_a_hit(tmp_path):
    """A model that was trained on few images finds many of its crystals unlike them."""

    class Novel(Scripted):
        reference = "few images"

        def described(self, images):
            return self.score(images), np.full(len(images), 2.8, np.float32), np.zeros((len(images), 0), np.float32)

    files = []
    for drop, colour in ((1, (120, 9, 9)), (2, (250, 9, 9)), (3, (9, 9, 250))):
        files.append(tmp_path / f"03c3_A1-{drop}_2026-03-02_VIS_1.png")
        picture = Image.new("RGB", (256, 208), colour)
        picture.paste((255, 255, 255), (0, 104, 256, 208))
        picture.save(files[-1])
    outcome = predict_with_report(Novel(), files, tmp_path / "s.csv", tmp_path / "p.html", Options(["marco"]))
    assert outcome.by_flag == {"unknown": 3}
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    images = json.loads(Page(text).data)["images"]
    assert [(image["flag"], image["unusable"]) for image in images] == [("unknown", False)] * 3
    hits = [image["class"] == 1 for image in images]
    assert any(hits) and [image["hit"] for image in images] == hits
    assert re.search(r'data-count="hits">(\d+)', text).group(1) == str(sum(hits))
    assert "3 images are unlike those that the model was trained on" in " ".join(Page(text).text.split())


def test_plates_of_one_name_in_two_folders_stay_two(tmp_path):
    files = [
        tmp_path / lab / "03c3" / day / "A01_1.png"
        for lab in ("lab 1", "lab 2")
        for day in ("2026-03-02", "2026-03-09")
    ]
    for path in files:
        path.parent.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(path)
    predict_with_report(Scripted(), files, tmp_path / "s.csv", tmp_path / "plate.html", Options(["marco"]))
    data = json.loads(Page((tmp_path / "plate.html").read_text(encoding="utf-8")).data)
    assert [plate["name"] for plate in data["plates"]] == ["03c3 in lab 1", "03c3 in lab 2"]
    assert [[time["label"] for time in plate["times"]] for plate in data["plates"]] == [
        ["2 Mar 2026", "9 Mar 2026"]
    ] * 2
    assert [image["plate"] for image in data["images"]] == [0, 0, 1, 1]
    with (tmp_path / "s.csv").open(newline="") as file:
        assert {(row["plate"], row["well"], row["drop"]) for row in csv.DictReader(file)} == {("03c3", "A01", "1")}


def test_file_names_and_names_of_models_are_text(made):
    outcome, _, text = made
    page = Page(text)
    assert outcome.failed == 1
    assert "1 file could not be scored" in page.text
    assert ODD in page.text
    assert "scripted <b>" in page.text
    assert not [tag for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert text.count("<script") == text.count("</script>") == 2
    assert "<b>" not in page.data and "<img" not in page.data
    explain = json.loads(page.data)["images"][7]["explain"]
    command = ["marco", "explain", "--output", "explained", "--class", "Crystals"]
    assert shlex.split(explain)[:-1] == command
    assert Path(shlex.split(explain)[-1]).name == ODD


def test_nothing_is_loaded_from_elsewhere(made):
    text = made[2]
    page = Page(text)
    for _, attributes in page.tags:
        for name in ("src", "href", "action"):
            assert name not in attributes
    assert set(re.findall(r"https?://[^\s\"')]+", text)) == {"http://www.w3.org/2000/svg"}
    policy = next(tag["content"] for _, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_thumbnails_are_as_small_as_asked_and_keep_their_colours():
    smooth = np.stack(np.meshgrid(np.linspace(0, 255, 1280), np.linspace(0, 255, 960)), -1)
    smooth = np.concatenate([smooth, np.full((960, 1280, 1), 90)], -1).astype(np.uint8)
    for ending, options in (("JPEG", {"quality": 95}), ("PNG", {})):
        encoded = io.BytesIO()
        Image.fromarray(smooth).save(encoded, ending, **options)
        made = thumbnail(encoded.getvalue(), 160)
        small = np.asarray(Image.open(io.BytesIO(made.jpeg)).convert("RGB")).astype(int)
        assert small.shape == (made.height, made.width, 3) == (120, 160, 3)
        blocks = smooth.reshape(120, 8, 160, 8, 3).mean(axis=(1, 3))
        assert np.abs(small - blocks).mean() < 2
    deep = io.BytesIO()
    Image.fromarray(np.full((20, 30), 0x8040, np.uint16)).save(deep, "PNG")
    made = thumbnail(deep.getvalue(), 480)
    assert (made.width, made.height) == (30, 20)
    assert np.abs(np.asarray(Image.open(io.BytesIO(made.jpeg))).astype(int) - 0x80).max() <= 2
    assert thumbnail(b"no image", 480) is None
    assert usual_size(288) == 480 > usual_size(1536) > usual_size(4608)


def test_which_classes_mean_crystals():
    ten = ("Clear", "Crystals", "Phase separation and crystals", "Skin")
    assert crystal_classes(ten) == [1, 2]
    assert crystal_classes(ten, ["skin"]) == [3]
    with pytest.raises(InputError, match="no class 'Needles'"):
        crystal_classes(ten, ["Needles"])
    with pytest.raises(InputError, match="--crystal-class"):
        crystal_classes(("Hit", "Miss"))


def test_a_report_of_nothing_but_failures_is_still_one(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    report = tmp_path / "plate.html"
    outcome = predict_with_report(Scripted(), [tmp_path / "a.png"], tmp_path / "s.csv", report, Options(["marco"]))
    assert outcome.failed == 1
    assert "1 file could not be scored" in report.read_text()
    assert datetime.datetime.now().strftime("%Y") in report.read_text()


def test_a_page_that_cannot_be_written_leaves_a_complete_table(tmp_path, monkeypatch):
    Image.new("RGB", (256, 208)).save(tmp_path / "drop.png")
    output, report = tmp_path / "scores.csv", tmp_path / "plate.html"

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(plate_report.Page, "render", full)
    with pytest.raises(OSError, match="the scores are complete in") as stopped:
        predict_with_report(Scripted(), [tmp_path / "drop.png"], output, report, Options(["marco"]))
    assert stopped.value.filename == str(report)
    assert stopped.value.strerror == f"No space left on device; the scores are complete in {output}"
    assert len(output.read_text().splitlines()) == 2 and not report.exists()
