"""What a table and Python say of drops over time; a picture's crystal score is its brightness."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from marco_data.places import place_of
from marco_model import errors
from marco_model.time_course import Series, TimeCourse
from marco_scoring import plate_report, plates, prediction, score_images, score_table
from tests.fakes.classifier import Scripted
from tests.marco_scoring.plate_report.test_page import Page

COURSE = TimeCourse(
    classes=np.array([1]),
    temperature=1.0,
    axes=np.zeros((0, 0)),
    weights=np.array([0.0, 0.5, 1.0, 0.0, 0.0]),
    thresholds=np.full(2, 0.93),
)
BRIGHTNESS = {"A1": [0.1, 0.2, 0.8, 0.9], "A2": [0.7, 0.95], "A3": [0.1, 0.2, 0.1]}


class Brightness(Scripted):
    """A classifier with a time course."""

    classes = ("Clear", "Crystals")
    name = "brightness"
    time_course = COURSE

    def __init__(self):
        self.scored = 0

    def score(self, images):
        self.scored += len(images)
        means = [np.asarray(Image.open(io.BytesIO(image)).convert("L")).mean() / 255 for image in images]
        return np.array([(1 - mean, mean) for mean in means], np.float32).reshape(-1, 2)


def draw(path, brightness):
    """Writes a picture of this mean with some contrast, which is neither blank nor too small."""
    pixels = np.full((208, 256), 255 * brightness)
    pixels[::2] += 12
    pixels[1::2] -= 12
    Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8)).save(path)
    return path


def draw_plate(folder):
    """Draws pictures of three drops; inspection 10 comes before 9 by name, and there is none with 3 to 8."""
    folder.mkdir()
    numbers = (1, 2, 9, 10)
    drawn = [
        draw(folder / f"03c3_{well}_ImagerDefaults_{number}.png", brightness)
        for well, values in BRIGHTNESS.items()
        for number, brightness in zip(numbers, values, strict=False)
    ]
    return sorted([*drawn, draw(folder / "loose.png", 0.99)])


@pytest.fixture
def files(tmp_path):
    return draw_plate(tmp_path / "pictures")


def expected(well, count):
    scores = np.array([(1 - score, score) for score in BRIGHTNESS[well][:count]])
    return COURSE.probabilities(Series(np.zeros((count, 0)), scores))


def rows(path):
    with path.open(newline="") as table:
        return {row["path"].rpartition("/")[2]: row for row in csv.DictReader(table)}


def check(found):
    """The rows say what all pictures of each drop say, in the order of inspections."""
    for well, numbers in (("A1", (1, 2, 9, 10)), ("A2", (1, 2)), ("A3", (1, 2, 9))):
        answers = [found[f"03c3_{well}_ImagerDefaults_{number}.png"] for number in numbers]
        by_now = expected(well, len(numbers))
        assert [float(row["crystals_by_now"]) for row in answers] == pytest.approx(by_now.tolist(), abs=0.02)
        alarm = COURSE.alarm(by_now)
        since = ["" if alarm is None or at < alarm else str(numbers[alarm]) for at in range(len(numbers))]
        assert [row["crystals_since"] for row in answers] == since
    assert found["loose.png"]["crystals_by_now"] == found["loose.png"]["crystals_since"] == ""


def test_rows_tell_since_when_a_drop_has_crystals(files, tmp_path):
    outcome = prediction.predict(Brightness(), files, tmp_path / "scores.csv", 3)
    check(rows(tmp_path / "scores.csv"))
    assert {answer.since for answer in outcome.courses.values()} == {"", "2", "10"}
    assert list(outcome.courses) != [] and len(outcome.courses) == 9


def test_an_appended_picture_is_seen_with_the_earlier_ones(files, tmp_path):
    output, options = tmp_path / "scores.csv", score_table.Options(append=True)
    late = [path for path in files if path.name.endswith("A1_ImagerDefaults_10.png")]
    prediction.predict(Brightness(), [path for path in files if path not in late], output, 3)
    classifier = Brightness()
    prediction.predict(classifier, files, output, 3, options=options)
    check(rows(output))
    # One to compare with the table, the new one, and the three others of its drop.
    assert classifier.scored == 1 + 1 + 3
    again = Brightness()
    outcome = prediction.predict(again, files, output, 3, options=options)
    assert again.scored == 1 and len(outcome.courses) == 9
    check(rows(output))


def test_a_picture_that_changed_and_got_a_flag_has_no_earlier_answer(files, tmp_path):
    output, changed = tmp_path / "scores.csv", files[0]
    assert changed in prediction.predict(Brightness(), files, output, 3).courses
    draw(changed, 0)  # Its darkest pixels are 0, its brightest 12: black.
    outcome = prediction.predict(Brightness(), files, output, 3, options=score_table.Options(append=True))
    assert rows(output)[changed.name]["flag"] == "black"
    assert changed not in outcome.courses and len(outcome.courses) == 8


def test_a_run_that_was_stopped_is_completed(files, tmp_path):
    class Stopping(Brightness):
        def score(self, images):
            if self.scored >= 6:
                raise KeyboardInterrupt
            return super().score(images)

    output = tmp_path / "scores.csv"
    with pytest.raises(errors.Interrupted):
        prediction.predict(Stopping(), files, output, 3)
    prediction.predict(Brightness(), files, output, 3, options=score_table.Options(resume=True))
    check(rows(output))


def test_the_best_row_of_a_drop_tells_since_when_by_all_its_pictures(files, tmp_path):
    draw(files[0].with_name("03c3_A2_ImagerDefaults_3.png"), 0.5)
    files = sorted(files[0].parent.iterdir())
    prediction.predict(Brightness(), files, tmp_path / "best.csv", 3, options=score_table.Options(best=True))
    found = {row["well"]: row for row in rows(tmp_path / "best.csv").values()}
    assert {well: row["crystals_since"] for well, row in found.items()} == {"A1": "10", "A2": "2", "A3": "", "": ""}


def test_a_stream_and_json_have_the_answers_too(files, capsys):
    prediction.predict(Brightness(), files, score_table.STDOUT, 3, options=score_table.Options("jsonl"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {row["path"].rpartition("/")[2]: {name: cell or "" for name, cell in row.items()} for row in lines}
    check(found)
    assert lines[-1]["crystals_by_now"] is None


def test_python_has_the_answers_too(files, monkeypatch):
    monkeypatch.setattr("marco_model.LoadedClassifier", Brightness)
    scored = score_images(files, Brightness())
    check({row["path"].rpartition("/")[2]: row for row in scored})


def test_a_plate_page_has_the_answers_too(files, tmp_path):
    report = tmp_path / "plate.html"
    plate_report.predict_with_report(Brightness(), files, None, report, plate_report.Options(["marco", "explain"]))
    data = json.loads(Page(report.read_text()).data)
    found = {image["path"].rpartition("/")[2]: image for image in data["images"]}
    check(
        {
            name: {
                "crystals_by_now": image["by_now"] if image["by_now"] is not None else "",
                "crystals_since": image["since"],
            }
            for name, image in found.items()
        }
    )


def pictures(*named):
    scores = np.array([0.5, 0.5])
    return [plates.ScoredPicture(name, place_of(name), scores, np.zeros(0), flag) for name, flag in named]


def test_pictures_of_one_inspection_are_one_and_others_are_left_out():
    names = ["03c3_A1-1_2026-03-02_VIS_1.png", "03c3_A1-1_2026-03-02_VIS_2.png", "03c3_A1-1_2026-03-02_UV_1.png"]
    found = plates.course_answers(COURSE, pictures(*((name, "") for name in names)))
    assert set(found) == set(names[:2]) and {answer.by_now for answer in found.values()} == {0.5}
    assert plates.course_answers(COURSE, pictures((names[0], "black"))) == {}
    assert set(plates.course_answers(COURSE, pictures((names[0], "unknown")))) == {names[0]}


def test_only_drops_with_unanswered_pictures_are_scored_again():
    names = [f"03c3_{well}_ImagerDefaults_{number}.png" for well in ("A1", "A2") for number in (1, 2)]
    files = {name: place_of(name) for name in names}
    assert plates.to_score_again(files, set(names[:3]), set(names[:3])) == [names[2]]
    assert plates.to_score_again(files, set(names), set(names)) == []
