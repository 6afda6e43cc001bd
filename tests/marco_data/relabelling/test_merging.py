"""The rules that decide, the agreement of raters, and sheets that become an overlay with a report."""

import csv
import io
import itertools
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import cohen_kappa_score

from marco_data import contract
from marco_data.overlay import Answer, image_digest, read_overlay
from marco_data.relabelling.merging import RULES, fleiss_kappa, group_agreement, merge, merge_sheets, pair_agreement
from marco_data.tfrecord import frame
from marco_model.errors import InputError
from marco_model.labels import CLASSES


def answers_by(rater, date="2026-01-01", **labels):
    return {int(number[1:]): Answer(label, rater, date, f"{rater}:{number}") for number, label in labels.items()}


THREE = {
    "anna": answers_by("anna", "2026-01-01", _1="Clear", _2="Clear", _3="Clear", _4="Other"),
    "ben": answers_by("ben", "2026-01-03", _1="Clear", _2="Other", _3="Other"),
    "carl": answers_by("carl", "2026-01-02", _1="Clear", _2="Other", _3="Crystals", _5="Other"),
}


@pytest.mark.parametrize(
    ("rule", "labels", "undecided"),
    [
        ("majority", {1: "Clear", 2: "Other", 4: "Other", 5: "Other"}, {3}),
        ("unanimous", {1: "Clear", 4: "Other", 5: "Other"}, {2, 3}),
        ("first", {1: "Clear", 2: "Clear", 3: "Clear", 4: "Other", 5: "Other"}, set()),
    ],
)
def test_each_rule_decides_as_it_is_described(rule, labels, undecided):
    result = merge(THREE, rule)
    assert {number: answer.label for number, answer in result.decided.items()} == labels
    assert set(result.undecided) == undecided


def test_a_decision_names_its_raters_and_the_date_of_the_last_answer():
    decided = merge(THREE).decided
    assert decided[1][:3] == ("Clear", "anna+ben+carl", "2026-01-03")
    assert decided[2][:3] == ("Other", "ben+carl", "2026-01-03")
    assert merge(THREE, "first").decided[2][:3] == ("Clear", "anna", "2026-01-01")


def test_a_tie_keeps_all_answers():
    assert [answer.where for answer in merge(THREE).undecided[3]] == ["anna:_3", "ben:_3", "carl:_3"]


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'most'; give one of majority, unanimous, first"):
        merge(THREE, "most")


sheets_of_one_rater = st.dictionaries(st.integers(0, 9), st.sampled_from(CLASSES))


@given(st.lists(sheets_of_one_rater, min_size=1, max_size=4), st.sampled_from(sorted(RULES)))
def test_no_answer_is_lost_and_the_order_of_raters_matters_only_to_the_rule_first(sheets, rule):
    raters = {
        name: {number: Answer(label, name, "2026-01-01") for number, label in sheet.items()}
        for name, sheet in zip("abcd", sheets, strict=False)
    }
    result = merge(raters, rule)
    assert result.decided.keys() | result.undecided.keys() == set(itertools.chain(*sheets))
    assert not result.decided.keys() & result.undecided.keys()
    if rule != "first":
        turned = merge(dict(reversed(raters.items())), rule)
        assert {n: answer.label for n, answer in turned.decided.items()} == {
            n: answer.label for n, answer in result.decided.items()
        }


# The worked example of the English Wikipedia's article "Fleiss' kappa": 14 raters, 10 subjects, 5 categories.
WORKED = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_fleiss_kappa_is_that_of_the_published_example():
    assert fleiss_kappa(np.array(WORKED)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_raters_who_all_agree_is_one_and_of_one_category_undefined():
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == pytest.approx(1)
    assert math.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))


@pytest.mark.parametrize("counts", [[[2, 0], [1, 0]], [[1, 0]], np.zeros([0, 2])])
def test_fleiss_kappa_needs_the_same_number_of_raters_for_each_subject(counts):
    with pytest.raises(ValueError, match="same number of raters"):
        fleiss_kappa(np.array(counts))


label_pairs = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=2, max_size=40)


@given(label_pairs)
def test_the_agreement_of_a_pair_matches_scikit_learn(answers):
    first, second = ({number: labels[side] for number, labels in enumerate(answers)} for side in (0, 1))
    agreement = pair_agreement(first, {**second, -1: "Clear"}, CLASSES)
    assert agreement["images"] == len(answers)
    assert agreement["agree"] == pytest.approx(sum(a == b for a, b in answers) / len(answers))
    if len({label for labels in answers for label in labels}) == 1:
        assert agreement["kappa"] is None
    else:
        assert agreement["kappa"] == pytest.approx(cohen_kappa_score(*zip(*answers, strict=True)))


def test_only_images_that_all_of_several_raters_labelled_count():
    agreement = group_agreement(
        {"a": {1: "Clear", 2: "Other", 3: "Clear"}, "b": {1: "Clear", 2: "Clear"}, "c": {1: "Clear", 2: "Other"}},
        CLASSES,
    )
    assert agreement["images"] == 2 and agreement["disagree"] == 0.5
    assert group_agreement({"a": {1: "Clear"}}, CLASSES) == {"images": 0, "disagree": None, "kappa": None}


def test_agreement_without_common_images_is_undefined():
    assert pair_agreement({1: "Clear"}, {2: "Clear"}, CLASSES) == {"images": 0, "agree": None, "kappa": None}


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


def merge_files(tmp_path, sheets, **options):
    return merge_sheets(sheets, str(tmp_path / "key.csv"), tmp_path / "out" / "overlay.csv", **options)


def test_a_sheet_is_not_written_over(tmp_path):
    (tmp_path / "anna.csv").write_text("kept")
    with pytest.raises(InputError, match=r"--output .*anna.csv is an input"):
        merge_sheets([str(tmp_path / "anna.csv")], "key.csv", tmp_path / "anna.csv")


ANNA = "11,,crystals,anna,2026-01-02,sure\n12,,Other,anna,2026-01-02,\n13,,Clear,anna,2026-01-02,\n14,,,anna,,\n"
BEN = "14,,Crystals,,2026-01-04,\n13,,Other,,2026-01-04,\n12,,Other,,2026-01-04,\n11,,Crystals,,2026-01-04,\n"


def test_two_sheets_become_an_overlay_and_a_report(files, tmp_path):
    report, answers = merge_files(tmp_path, files(anna=ANNA, ben=BEN))
    overlay = read_overlay(str(tmp_path / "out" / "overlay.csv"))
    assert {number: answer[:3] for number, answer in overlay.items()} == {
        11: ("Crystals", "anna+ben", "2026-01-04"),
        12: ("Other", "anna+ben", "2026-01-04"),
        14: ("Crystals", "ben", "2026-01-04"),
    }
    assert (report["exported"], report["answered"], report["decided"], report["undecided"]) == (4, 4, 3, 1)
    assert report["splits"]["train"] == {
        "exported": 2, "decided": 2, "changed": 1, "share_changed": 0.5,
        "by_class": {"Clear": {"Crystals": 1}, "Other": {"Other": 1}},
    }  # fmt: skip
    assert report["splits"]["eval"]["changed"] == 1 and report["splits"]["all"]["share_changed"] == pytest.approx(2 / 3)
    assert report["raters"]["anna"]["with_old_labels"]["agree"] == pytest.approx(1 / 3)
    assert report["raters"]["ben"]["with_classifier"]["agree"] == pytest.approx(2 / 4)
    assert report["pairs"][0]["images"] == 3 and report["all_raters"]["disagree"] == pytest.approx(1 / 3)
    assert json.loads((tmp_path / "out" / "overlay.report.json").read_text()) == report
    assert [line[:3] for line in answers.unanswered] == [("sheet-anna.csv, line 5", 14, "anna")]


def test_undecided_and_unanswered_images_are_listed_until_they_are_decided(files, tmp_path):
    merge_files(tmp_path, files(anna=ANNA, ben=BEN))
    rows = list(csv.DictReader((tmp_path / "out" / "overlay.undecided.csv").open()))
    assert [(row["image_id"], row["rater"], row["label"], row["where"]) for row in rows] == [
        ("13", "anna", "Clear", "sheet-anna.csv, line 4"),
        ("13", "ben", "Other", "sheet-ben.csv, line 3"),
    ]
    assert (tmp_path / "out" / "overlay.unanswered.csv").read_text().splitlines()[1].startswith("14,anna,")
    merge_files(tmp_path, files(ben=BEN))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "overlay.csv", "overlay.report.html", "overlay.report.json",
    ]  # fmt: skip


def test_the_page_has_the_numbers_of_the_report_and_escapes_names(files, tmp_path):
    merge_files(tmp_path, files(anna=ANNA.replace("anna", "<b>anna"), ben=BEN))
    page = (tmp_path / "out" / "overlay.report.html").read_text()
    assert "66.7%" in page and "42.6%" in page and "22.0%" in page
    assert "&lt;b&gt;anna" in page and "<b>anna" not in page
    assert "://" not in page


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("11,,Crystal,anna,2026-01-02,", "sheet-anna.csv, line 2: class 'Crystal' is not one of Clear, Crystals, Other, Precipitate"),  # noqa: E501
        ("99,,Clear,anna,2026-01-02,", "sheet-anna.csv, line 2: image 99 was not exported"),
        ("11,,Clear,anna,1/2/26,", "sheet-anna.csv, line 2: date is '1/2/26'"),
        ("11,,Clear,anna,2026-01-02,\n11,,Other,anna,2026-01-02,", "sheet-anna.csv, line 3: anna says Other of image 11, and Clear in sheet-anna.csv, line 2"),  # noqa: E501
    ],
)  # fmt: skip
def test_answers_that_cannot_be_used_are_named_and_nothing_is_written(files, tmp_path, line, message):
    with pytest.raises(InputError) as caught:
        merge_files(tmp_path, files(anna=line + "\n" + "12,,Clear,anna,2026-13-01,\n"))
    assert message in str(caught.value) and "2026-13-01" in str(caught.value)
    assert str(caught.value).startswith("2 answers cannot be used")
    assert not (tmp_path / "out").exists()


def test_the_first_of_many_bad_answers_are_shown_and_the_rest_are_counted(files, tmp_path):
    with pytest.raises(InputError, match=r"^9 answers cannot .* and 4 more$"):
        merge_files(tmp_path, files(anna="99,,Clear,anna,2026-01-02,\n" * 9))


def test_a_common_date_fills_empty_dates_and_a_repeated_line_is_reported(files, tmp_path):
    _, answers = merge_files(tmp_path, files(anna="11,,Clear,anna,,\n11,,Clear,anna,,\n"), date="2026-05-06")
    assert answers.repeated == ["sheet-anna.csv, line 3 repeats sheet-anna.csv, line 2"]
    assert read_overlay(str(tmp_path / "out" / "overlay.csv"))[11].date == "2026-05-06"


def test_an_earlier_round_stays_and_the_newer_answer_counts(files, tmp_path):
    (tmp_path / "first.csv").write_text("image_id,label,rater,date\n11,Other,old,2025-01-01\n77,Clear,old,2025-01-01\n")
    merge_files(tmp_path, files(ben=BEN), earlier=str(tmp_path / "first.csv"))
    overlay = read_overlay(str(tmp_path / "out" / "overlay.csv"))
    assert overlay[11].rater == "ben" and overlay[77].rater == "old"


@pytest.mark.parametrize("date", ["2026-01-04", "2027-01-01"])
def test_an_answer_that_is_not_newer_than_one_of_an_earlier_round_is_refused(files, tmp_path, date):
    earlier = tmp_path / "first.csv"
    earlier.write_text(f"image_id,label,rater,date\n11,Other,old,{date}\n")
    message = (
        f"first.csv, line 2: image 11 is Other on {date}, and Crystals on 2026-01-04 in sheet-anna.csv, line 2 and "
    )
    with pytest.raises(InputError, match=f"{message}sheet-ben.csv, line 5, which is no later"):
        merge_files(tmp_path, files(anna=ANNA, ben=BEN), earlier=str(earlier))
    assert not (tmp_path / "out").exists()
    earlier.write_text(f"image_id,label,rater,date\n11,crystals,old,{date}\n")
    assert merge_files(tmp_path, files(anna=ANNA, ben=BEN), earlier=str(earlier))[0]["decided"] == 3


def test_all_lines_of_an_earlier_round_stay_and_none_twice(files, tmp_path):
    earlier = tmp_path / "first.csv"
    lines = ["image_id,label,rater,date", "77,Clear,old,2025-01-01", "11,Other,old,2025-02-01", "11,Clear,a,2025-01-01"]
    earlier.write_text("\n".join(lines))
    merge_files(tmp_path, files(ben=BEN), earlier=str(earlier))
    output = tmp_path / "out" / "overlay.csv"
    written = output.read_text()
    assert written.splitlines()[:5] == [*lines, "11,Crystals,ben,2026-01-04"]
    merge_files(tmp_path, files(ben=BEN), earlier=str(output))
    assert output.read_text() == written


def test_a_rater_is_one_whatever_the_case_of_the_name(files, tmp_path):
    sheets = files(anna=ANNA, again="11,,Other,Anna,2026-01-03,\n14,,Crystals,ANNA,2026-01-03,\n13,,,Anna,,\n")
    with pytest.raises(
        InputError, match=r"sheet-again.csv, line 2: anna says Other of image 11, and Crystals in sheet"
    ):
        merge_files(tmp_path, sheets)
    sheets = files(again="14,,Crystals,ANNA,2026-01-03,\n13,,,Anna,,\n")
    report, _ = merge_files(tmp_path, [*sheets, str(tmp_path / "sheet-anna.csv")])
    assert list(report["raters"]) == ["ANNA"] and report["raters"]["ANNA"]["unanswered"] == 2
    assert report["pairs"] == []


def test_classes_are_read_from_the_export_beside_the_key(files, tmp_path):
    (tmp_path / "export.json").write_text(json.dumps({"classes": ["Hit", "Nothing"]}))
    merge_files(tmp_path, files(ben="11,,hit,ben,2026-01-04,\n"))
    assert read_overlay(str(tmp_path / "out" / "overlay.csv"))[11].label == "Hit"


@pytest.fixture
def pictures(tmp_path):
    """Shards of six images, of which the last two are one picture, and the pictures' digests."""
    encoded = [f"picture {number}".encode() for number in (0, 1, 2, 3, 4, 4)]
    for split, numbers in (("train", (0, 1, 4)), ("test", (2, 3, 5))):
        records = [
            contract.build_example(
                encoded=encoded[number], image_format="JPEG", height=1, width=1, filename="d1_r498_ef.jpg",
                image_id=100 + number, label=0, label_text="Clear", label_raw=0, source=0,
            ).SerializeToString()
            for number in numbers
        ]  # fmt: skip
        (tmp_path / f"{split}-00001-of-00001").write_bytes(b"".join(map(frame, records)))
    return [image_digest(image) for image in encoded]


def page_sheet(tmp_path, *rows):
    """A sheet as a plate page saves it."""
    (tmp_path / "sheet.csv").write_text(
        "\ufefffilename,label,rater,date,note,predicted,image\r\n" + "\r\n".join(rows), encoding="utf-8"
    )
    return [str(tmp_path / "sheet.csv")]


def test_sheets_of_plate_pages_find_their_records_by_the_images_themselves(pictures, tmp_path):
    rows = [
        f"a/d1_r498_ef.jpg,Crystals,anna,2026-01-02,,Clear,{pictures[1]}",
        f"b/d1_r498_ef.jpg,Clear,anna,2026-01-02,,Crystals,{pictures[3]}",
        f"b/copy.jpg,Other,anna,2026-01-02,,Other,{pictures[5]}",
        "c/new.jpg,Crystals,anna,2026-01-02,,Clear,blake2b:0",
    ]
    output = tmp_path / "out" / "overlay.csv"
    report, answers = merge_sheets(page_sheet(tmp_path, *rows), "", output, data=[str(tmp_path)])
    assert {number: answer[:3] for number, answer in read_overlay(str(output)).items()} == {
        101: ("Crystals", "anna", "2026-01-02"),
        103: ("Clear", "anna", "2026-01-02"),
        104: ("Other", "anna", "2026-01-02"),
        105: ("Other", "anna", "2026-01-02"),
    }
    assert {name: (split["decided"], split["changed"]) for name, split in report["splits"].items()} == {
        "train": (2, 2), "eval": (2, 1), "all": (4, 3),
    }  # fmt: skip
    assert report["raters"]["anna"]["with_classifier"]["agree"] == 0.5
    assert answers.unmatched == [("c/new.jpg", "Crystals", "anna", "sheet.csv, line 5")]
    assert output.with_suffix(".unmatched.csv").read_text().splitlines()[0] == "filename,label,rater,where"


def test_sheets_of_which_no_record_has_an_image_are_refused(pictures, tmp_path):
    sheets = page_sheet(tmp_path, "a.jpg,Crystals,anna,2026-01-02,,Clear,blake2b:0")
    with pytest.raises(InputError, match=r"has one of the 1 images .* marco data import --csv SHEET"):
        merge_sheets(sheets, "", tmp_path / "overlay.csv", data=[str(tmp_path)])
    for key, data in (("", ()), ("key.csv", [str(tmp_path)])):
        with pytest.raises(InputError, match=r"give --key .*, or --data"):
            merge_sheets(sheets, key, tmp_path / "overlay.csv", data=data)


IDS = [1076954365840981 + 137_000_000_001 * number for number in range(8)]
"""Of 16 digits, one more than Excel keeps."""


def excel_default(number):
    return f"{number:.5E}"


def excel_german(number):
    return f"{number:.5E}".replace(".", ",")


def excel_typed(number):
    return f"{number // 10 * 10}"


def calc(number):
    return f"{float(f'{number:.14e}'):.14E}"


def as_it_was(number):
    return str(number)


@pytest.mark.parametrize("shown", [excel_default, excel_german, excel_typed, calc, as_it_was])
@pytest.mark.parametrize(
    "date", ["2026-11-27", "11/27/2026", "27/11/2026", "27.11.2026", "11/27/2026 0:00", "27 Nov 2026"]
)
@pytest.mark.parametrize(("comma", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_sheet_that_a_spreadsheet_saved_merges_as_the_one_that_was_sent(tmp_path, shown, date, comma, encoding):
    files = [f"images/{number:04d}.jpg" for number in range(8)]
    key = [f"{image},{file},train,train-1,0,Clear,Other,0.01,0.99" for image, file in zip(IDS, files, strict=True)]
    (tmp_path / "key.csv").write_text("\n".join([KEY.splitlines()[0], *key]))
    lines = [["image_id", "file", "label", "rater", "date", "note"]]
    lines += [[shown(image), file, "Crystals", "Jürgen", date, ""] for image, file in zip(IDS, files, strict=True)]
    text = io.StringIO()
    csv.writer(text, delimiter=comma).writerows(lines)
    (tmp_path / "sheet.csv").write_bytes(text.getvalue().encode(encoding))
    merge_sheets([str(tmp_path / "sheet.csv")], str(tmp_path / "key.csv"), tmp_path / "overlay.csv")
    answers = read_overlay(str(tmp_path / "overlay.csv"))
    assert {number: answer[:3] for number, answer in answers.items()} == dict.fromkeys(
        IDS, ("Crystals", "Jürgen", "2026-11-27")
    )


def test_an_id_of_another_export_is_not_found_by_its_file(tmp_path, files):
    (sheet,) = files(anna="99,images/0001.jpg,Clear,anna,2026-01-02,\n9.9E+01,images/0002.jpg,Clear,anna,2026-01-02,\n")
    with pytest.raises(InputError, match=r"image 99 was not exported.*image_id is '9.9E\+01'"):
        merge_files(tmp_path, [sheet])


def test_ids_that_a_spreadsheet_rounded_without_a_file_to_go_by_are_refused(tmp_path):
    rounded = [excel_typed(image) for image in IDS]
    (tmp_path / "key.csv").write_text(
        "\n".join([KEY.splitlines()[0], *(f"{image},a.jpg,train,train-1,0,Clear,Other,0.01,0.99" for image in rounded)])
    )
    (tmp_path / "overlay.csv").write_text(
        "\n".join(["image_id,label,rater,date", *(f"{image},Clear,anna,2026-01-02" for image in rounded)])
    )
    with pytest.raises(InputError, match=r"overlay.csv: all 8 ids of more than 15 digits end in 0"):
        read_overlay(str(tmp_path / "overlay.csv"))
    with pytest.raises(InputError, match=r"key.csv: all 8 ids"):
        merge_sheets([], str(tmp_path / "key.csv"), tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (["03/04/2026", "27/04/2026"], "2026-04-03"),
        (["03/04/2026", "04/27/2026"], "2026-03-04"),
        (["05-05-2026", "01.02.2026"], "2026-05-05"),
    ],
)
def test_a_date_that_could_be_two_is_read_as_others_of_its_sheet(files, tmp_path, dates, expected):
    lines = [f"{11 + number},,Clear,anna,{date}," for number, date in enumerate(dates)]
    merge_files(tmp_path, files(anna="\n".join(lines) + "\n"))
    assert read_overlay(str(tmp_path / "out" / "overlay.csv"))[11].date == expected


def test_a_date_that_could_be_two_is_refused_with_both(files, tmp_path):
    message = r"date is .03/04/2026., which may be 2026-03-04 or 2026-04-03; write it as"
    with pytest.raises(InputError, match=message):
        merge_files(tmp_path, files(anna="11,,Clear,anna,03/04/2026,\n"))
    with pytest.raises(InputError, match=message):
        merge_files(
            tmp_path, files(anna="11,,Clear,anna,03/04/2026,\n12,,Clear,anna,27/04/2026,\n13,,Clear,,04/27/2026,\n")
        )


def test_answers_without_a_date_get_that_of_their_sheet(files, tmp_path):
    (sheet,) = files(anna="11,,Clear,anna,,\n12,,Crystal,anna,,\n")
    with pytest.raises(InputError, match=r"^1 answers cannot be used.*class 'Crystal'"):
        merge_files(tmp_path, [sheet])
    (sheet,) = files(anna="11,,Clear,anna,,\n")
    os.utime(sheet, (1_700_000_000, 1_700_000_000))
    merge_files(tmp_path, [sheet])
    assert read_overlay(str(tmp_path / "out" / "overlay.csv"))[11].date.startswith("2023-11-1")


@pytest.mark.slow
def test_classes_are_read_beside_a_key_in_a_bucket(files, tmp_path, gcs):
    bucket = gcs.bucket("look")
    bucket.blob("one/key.csv").upload_from_filename(str(tmp_path / "key.csv"))
    bucket.blob("one/export.json").upload_from_string(json.dumps({"classes": ["Hit", "Nothing"]}))
    sheets = files(ben="11,,hit,ben,2026-01-04,\n")
    merge_sheets(sheets, "gs://look/one/key.csv", tmp_path / "overlay.csv")
    assert read_overlay(str(tmp_path / "overlay.csv"))[11].label == "Hit"
