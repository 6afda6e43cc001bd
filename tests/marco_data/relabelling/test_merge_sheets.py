import csv
import json

import pytest

from marco_data.overlay import read_overlay
from marco_data.relabelling.merging import merge_sheets
from marco_model.errors import InputError

KEY = """image_id,file,split,shard,index,old_label,predicted,probability,disagreement
11,images/0001.jpg,train,train-1,0,Clear,Crystals,0.01,0.99
12,images/0002.jpg,train,train-1,5,Other,Other,0.02,0.98
13,images/0003.jpg,eval,test-1,2,Precipitate,Clear,0.03,0.97
14,images/0004.jpg,eval,test-1,3,Clear,Other,0.04,0.96
"""


@pytest.fixture
def files(tmp_path):
    def write(**sheets):
        paths = []
        for name, text in sheets.items():
            (tmp_path / f"sheet-{name}.csv").write_text("image_id,file,label,rater,date,note\n" + text)
            paths.append(str(tmp_path / f"sheet-{name}.csv"))
        return paths

    (tmp_path / "key.csv").write_text(KEY)
    return write


def merged(tmp_path, sheets, **options):
    return merge_sheets(sheets, str(tmp_path / "key.csv"), tmp_path / "out" / "overlay.csv", **options)


ANNA = "11,,crystals,anna,2026-01-02,sure\n12,,Other,anna,2026-01-02,\n13,,Clear,anna,2026-01-02,\n14,,,anna,,\n"
BEN = "14,,Crystals,,2026-01-04,\n13,,Other,,2026-01-04,\n12,,Other,,2026-01-04,\n11,,Crystals,,2026-01-04,\n"


def test_two_sheets_become_an_overlay_and_a_report(files, tmp_path):
    told, answers = merged(tmp_path, files(anna=ANNA, ben=BEN))
    overlay = read_overlay(str(tmp_path / "out" / "overlay.csv"))
    assert {number: one[:3] for number, one in overlay.items()} == {
        11: ("Crystals", "anna+ben", "2026-01-04"),
        12: ("Other", "anna+ben", "2026-01-04"),
        14: ("Crystals", "ben", "2026-01-04"),
    }
    assert (told["exported"], told["answered"], told["decided"], told["undecided"]) == (4, 4, 3, 1)
    assert told["splits"]["train"] == {
        "exported": 2, "decided": 2, "changed": 1, "share_changed": 0.5,
        "by_class": {"Clear": {"Crystals": 1}, "Other": {"Other": 1}},
    }  # fmt: skip
    assert told["splits"]["eval"]["changed"] == 1 and told["splits"]["all"]["share_changed"] == pytest.approx(2 / 3)
    assert told["raters"]["anna"]["with_old_labels"]["agree"] == pytest.approx(1 / 3)
    assert told["raters"]["ben"]["with_classifier"]["agree"] == pytest.approx(2 / 4)
    assert told["pairs"][0]["images"] == 3 and told["all_raters"]["disagree"] == pytest.approx(1 / 3)
    assert json.loads((tmp_path / "out" / "overlay.report.json").read_text()) == told
    assert [one[:3] for one in answers.unanswered] == [("sheet-anna.csv, line 5", 14, "anna")]


def test_what_is_undecided_or_unanswered_is_listed_and_not_listed_any_more_once_it_is_not(files, tmp_path):
    merged(tmp_path, files(anna=ANNA, ben=BEN))
    rows = list(csv.DictReader((tmp_path / "out" / "overlay.undecided.csv").open()))
    assert [(row["image_id"], row["rater"], row["label"], row["where"]) for row in rows] == [
        ("13", "anna", "Clear", "sheet-anna.csv, line 4"),
        ("13", "ben", "Other", "sheet-ben.csv, line 3"),
    ]
    assert (tmp_path / "out" / "overlay.unanswered.csv").read_text().splitlines()[1].startswith("14,anna,")
    merged(tmp_path, files(ben=BEN))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "overlay.csv", "overlay.report.html", "overlay.report.json",
    ]  # fmt: skip


def test_the_page_has_the_numbers_of_the_report_and_escapes_names(files, tmp_path):
    merged(tmp_path, files(anna=ANNA.replace("anna", "<b>anna"), ben=BEN))
    page = (tmp_path / "out" / "overlay.report.html").read_text()
    assert "66.7%" in page and "42.6%" in page and "22.0%" in page
    assert "&lt;b&gt;anna" in page and "<b>anna" not in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("11,,Crystal,anna,2026-01-02,", "sheet-anna.csv, line 2: class 'Crystal' is not one of Clear, Crystals, Other, Precipitate"),  # noqa: E501
        ("99,,Clear,anna,2026-01-02,", "sheet-anna.csv, line 2: image 99 was not exported"),
        ("11,,Clear,anna,,", "sheet-anna.csv, line 2: date is empty"),
        ("11,,Clear,anna,1/2/26,", "sheet-anna.csv, line 2: date is '1/2/26'"),
        ("11,,Clear,anna,2026-01-02,\n11,,Other,anna,2026-01-02,", "sheet-anna.csv, line 3: anna says Other of image 11, and Clear in sheet-anna.csv, line 2"),  # noqa: E501
    ],
)  # fmt: skip
def test_answers_that_cannot_be_used_are_named_and_nothing_is_written(files, tmp_path, line, told):
    with pytest.raises(InputError) as caught:
        merged(tmp_path, files(anna=line + "\n" + "12,,Clear,anna,2026-13-01,\n"))
    assert told in str(caught.value) and "2026-13-01" in str(caught.value)
    assert str(caught.value).startswith("2 answers cannot be used")
    assert not (tmp_path / "out").exists()


def test_of_many_bad_answers_the_first_are_told_and_the_rest_counted(files, tmp_path):
    with pytest.raises(InputError, match=r"^9 answers cannot .* and 4 more$"):
        merged(tmp_path, files(anna="99,,Clear,anna,2026-01-02,\n" * 9))


def test_a_date_for_all_stands_in_and_a_repeated_line_is_told(files, tmp_path):
    _, answers = merged(tmp_path, files(anna="11,,Clear,anna,,\n11,,Clear,anna,,\n"), date="2026-05-06")
    assert answers.repeated == ["sheet-anna.csv, line 3 repeats sheet-anna.csv, line 2"]
    assert read_overlay(str(tmp_path / "out" / "overlay.csv"))[11].date == "2026-05-06"


def test_an_earlier_round_stays_and_the_newer_answer_counts(files, tmp_path):
    (tmp_path / "first.csv").write_text("image_id,label,rater,date\n11,Other,old,2025-01-01\n77,Clear,old,2025-01-01\n")
    merged(tmp_path, files(ben=BEN), earlier=str(tmp_path / "first.csv"))
    overlay = read_overlay(str(tmp_path / "out" / "overlay.csv"))
    assert overlay[11].rater == "ben" and overlay[77].rater == "old"


@pytest.mark.parametrize("date", ["2026-01-04", "2027-01-01"])
def test_an_answer_that_is_no_newer_than_another_one_of_an_earlier_round_is_refused(files, tmp_path, date):
    earlier = tmp_path / "first.csv"
    earlier.write_text(f"image_id,label,rater,date\n11,Other,old,{date}\n")
    told = f"first.csv, line 2: image 11 is Other on {date}, and Crystals on 2026-01-04 in sheet-anna.csv, line 2 and "
    with pytest.raises(InputError, match=f"{told}sheet-ben.csv, line 5, which is no later"):
        merged(tmp_path, files(anna=ANNA, ben=BEN), earlier=str(earlier))
    assert not (tmp_path / "out").exists()
    earlier.write_text(f"image_id,label,rater,date\n11,crystals,old,{date}\n")
    assert merged(tmp_path, files(anna=ANNA, ben=BEN), earlier=str(earlier))[0]["decided"] == 3


def test_all_lines_of_an_earlier_round_stay_and_none_twice(files, tmp_path):
    earlier = tmp_path / "first.csv"
    lines = ["image_id,label,rater,date", "77,Clear,old,2025-01-01", "11,Other,old,2025-02-01", "11,Clear,a,2025-01-01"]
    earlier.write_text("\n".join(lines))
    merged(tmp_path, files(ben=BEN), earlier=str(earlier))
    output = tmp_path / "out" / "overlay.csv"
    written = output.read_text()
    assert written.splitlines()[:5] == [*lines, "11,Crystals,ben,2026-01-04"]
    merged(tmp_path, files(ben=BEN), earlier=str(output))
    assert output.read_text() == written


def test_a_rater_is_one_whatever_the_case_of_the_name(files, tmp_path):
    sheets = files(anna=ANNA, again="11,,Other,Anna,2026-01-03,\n14,,Crystals,ANNA,2026-01-03,\n13,,,Anna,,\n")
    with pytest.raises(
        InputError, match=r"sheet-again.csv, line 2: anna says Other of image 11, and Crystals in sheet"
    ):
        merged(tmp_path, sheets)
    sheets = files(again="14,,Crystals,ANNA,2026-01-03,\n13,,,Anna,,\n")
    told, _ = merged(tmp_path, [*sheets, str(tmp_path / "sheet-anna.csv")])
    assert list(told["raters"]) == ["ANNA"] and told["raters"]["ANNA"]["unanswered"] == 2
    assert told["pairs"] == []


def test_classes_are_those_of_the_export_beside_the_key(files, tmp_path):
    (tmp_path / "export.json").write_text(json.dumps({"classes": ["Hit", "Nothing"]}))
    merged(tmp_path, files(ben="11,,hit,ben,2026-01-04,\n"))
    assert read_overlay(str(tmp_path / "out" / "overlay.csv"))[11].label == "Hit"


@pytest.mark.slow
def test_a_key_in_a_bucket_has_its_classes_beside_it(files, tmp_path, gcs):
    bucket = gcs.bucket("look")
    bucket.blob("one/key.csv").upload_from_filename(str(tmp_path / "key.csv"))
    bucket.blob("one/export.json").upload_from_string(json.dumps({"classes": ["Hit", "Nothing"]}))
    sheets = files(ben="11,,hit,ben,2026-01-04,\n")
    merge_sheets(sheets, "gs://look/one/key.csv", tmp_path / "overlay.csv")
    assert read_overlay(str(tmp_path / "overlay.csv"))[11].label == "Hit"
