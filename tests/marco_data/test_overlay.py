import pytest

from marco_data.overlay import Answer, check_labels, overlay_fingerprint, read_overlay, write_overlay
from marco_model.errors import InputError
from marco_model.labels import FOUR, HWMRI_TEN, LabelScheme

HEAD = "image_id,label,rater,date\n"


@pytest.fixture
def overlay(tmp_path):
    def write(text, head=HEAD):
        path = tmp_path / "overlay.csv"
        path.write_text(head + text)
        return str(path)

    return write


def test_an_overlay_is_read_as_it_was_written(tmp_path):
    answers = {7: Answer("Crystals", "anna+ben", "2026-11-25"), -3: Answer("Clear", 'a "b", c', "2026-11-26")}
    write_overlay(tmp_path / "overlay.csv", answers.items())
    read = read_overlay(str(tmp_path / "overlay.csv"))
    assert {number: answer._replace(where="") for number, answer in read.items()} == answers
    assert read[-3].where == "overlay.csv, line 3"


def test_the_newest_date_wins_wherever_it_stands(overlay):
    read = read_overlay(overlay("1,Clear,a,2026-02-01\n1,Other,a,2026-01-01\n1,Crystals,b,2025-12-31\n"))
    assert read[1][:3] == ("Clear", "a", "2026-02-01")


def test_the_same_label_twice_on_a_date_is_not_a_conflict(overlay):
    assert read_overlay(overlay("1,Clear,a,2026-02-01\n1,clear,b,2026-02-01\n"))[1].rater == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,Clear,a,2026-02-01\n1,Other,b,2026-02-01\n", "line 3: image 1 is Other, and Clear on the same date in overlay.csv, line 2"),  # noqa: E501
        ("x,Clear,a,2026-02-01\n", "line 2: image_id is 'x'"),
        ("1,Clear,a,1/2/26\n", "line 2: date is '1/2/26'; write it as 2026-11-26"),
        ("1,Clear,a,01/02/2026\n", "line 2: date is '01/02/2026', which may be 2026-01-02 or 2026-02-01; write it as"),
        ("1,Clear,a,\n", "line 2: date is ''"),
        ("\n1,,a,2026-02-01\n", "line 3: label is empty for image 1"),
        ("1,Clear,,2026-02-01\n", "line 2: rater is empty"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_used_is_named(overlay, text, message):
    with pytest.raises(InputError, match=r"overlay.csv, ") as caught:
        read_overlay(overlay(text))
    assert message in str(caught.value)


def test_a_missing_file_or_column_is_reported_with_the_expected_header(overlay, tmp_path):
    with pytest.raises(InputError, match=r"has no column rater, date.*image_id,label,rater,date"):
        read_overlay(overlay("", "image_id,label\n"))
    for read in (read_overlay, overlay_fingerprint):
        with pytest.raises(InputError, match="there is no"):
            read(str(tmp_path / "nowhere.csv"))


def test_a_file_saved_by_a_spreadsheet_is_read_the_same(overlay):
    plain = read_overlay(overlay("1,Clear,a,2026-02-01\n2,Other,b,2026-02-01\n"))
    spread = read_overlay(
        overlay("1;Clear;a;2026-02-01\r\n2;Other;b;2026-02-01\r\n;;;\r\n", "\ufeffimage_id;label;rater;date\r\n")
    )
    assert spread == plain


def test_labels_are_those_that_the_scheme_looks_up(overlay):
    ten = read_overlay(overlay("1,Precip. & Skin,a,2026-02-01\n"))
    check_labels(ten, HWMRI_TEN)
    own = LabelScheme("classes", ("Hit", "Nothing"), "class", {"Crystals": "Hit", "Clear": "Nothing", "Other": None, "Precipitate": "Nothing"})  # fmt: skip  # noqa: E501
    check_labels(read_overlay(overlay("1,crystals,a,2026-02-01\n2,Hit,a,2026-02-01\n3,Other,a,2026-02-01\n")), own)
    for scheme in (FOUR, own):
        with pytest.raises(InputError, match=r"overlay.csv, line 2: label 'Precip. & Skin' is not one of"):
            check_labels(ten, scheme)
    with pytest.raises(InputError, match="'Other' is not one of Clear, Crystals, Garbage"):
        check_labels(read_overlay(overlay("1,Other,a,2026-02-01\n")), HWMRI_TEN)


def test_the_fingerprint_follows_the_content(overlay):
    before = overlay_fingerprint(overlay("1,Clear,a,2026-02-01\n"))
    assert overlay_fingerprint(overlay("1,Clear,a,2026-02-02\n")) != before
    assert overlay_fingerprint(overlay("1,Clear,a,2026-02-01\n")) == before


@pytest.mark.slow
def test_an_overlay_in_a_bucket_is_read_as_one_in_a_folder(overlay, gcs):
    local = overlay("1,Clear,a,2026-02-01\n2,Other,b,2026-02-01\n")
    gcs.bucket("labels").blob("of/overlay.csv").upload_from_filename(local)
    remote = "gs://labels/of/overlay.csv"
    for fault in ("503", "cut"):
        gcs.inject(fault, "GET .*alt=media")
    assert read_overlay(remote) == read_overlay(local)
    assert overlay_fingerprint(remote) == overlay_fingerprint(local)
    for read in (read_overlay, overlay_fingerprint):
        with pytest.raises(InputError, match=r"there is no .*gs://labels/of/other.csv"):
            read("gs://labels/of/other.csv")
