"""Places of a set's files: numbered wells by the size of their plate, and places by `--names`."""

import pickle
from pathlib import Path

import pytest

from marco_data import label_tables
from marco_data.place_reader import NamedPlaces, content_digest, reader, unused_rows
from marco_data.places import Place, from_parts, unreadable
from marco_model.errors import InputError


def storage(plate, well):
    return f"/store/plateID_{plate}/batchID_1/wellNum_{well}/profileID_1/d1_r498_ef.jpg"


def test_numbers_of_wells_are_read_by_the_size_of_their_own_plate():
    place_of = reader([storage(1, 13), storage(2, 13), storage(2, 300)])
    assert [place_of(path).well for path in (storage(1, 13), storage(2, 13), storage(2, 300))] == ["B1", "A13", "M12"]


def test_the_working_folder_may_be_a_plate(tmp_path, monkeypatch):
    plate = tmp_path / "03c3"
    plate.mkdir()
    monkeypatch.chdir(plate)
    assert reader(["A01.jpg"])("A01.jpg")[:2] == ("03c3", "A01")
    assert reader([])("gs://bucket/plate/A01.jpg")[:2] == ("plate", "A01")


def test_an_expression_is_searched_for_in_the_path():
    path = Path("run7/scan 3/barcode-77/xyz.G06.d2.20260302.jpg")
    names = r"scan (?P<inspection>\d+)/barcode-(?P<plate>\d+)/.*\.(?P<well>\w\d+)\.d(?P<drop>\d)\.(?P<date>\d+)"
    place_of = reader([path, Path("other.jpg")], names)
    assert place_of(path) == Place("77", "G06", "2", "3", "2026-03-02", "", "run7/scan 3")
    assert place_of("03c3_G6_ImagerDefaults_6.jpg") == Place()
    folder = reader(["a/plate 9/d_3-C04.jpg"], r"-(?P<well>[A-H]\d\d)")
    assert folder("a/plate 9/d_3-C04.jpg") == Place("plate 9", "C04", folder="a", by_folder=True)
    # What is not a well and not a date is left out.
    assert reader(["x_Z99.jpg"], "(?P<plate>x)_(?P<well>Z99)")("x_Z99.jpg") == Place("x")
    assert reader(["x_20261301.jpg"], "(?P<plate>x)_(?P<date>[0-9]+)")("x_20261301.jpg") == Place("x")


def test_a_table_names_files_relative_to_its_folder(tmp_path):
    table = tmp_path / "places.csv"
    table.write_text(
        "\ufeffPath;Plate;well;date;remark\na/1.jpg;p;A1;2026-03-02 14:30;\n" + f"{tmp_path / 'b.jpg'};p;A2;;x\n",
        encoding="utf-8",
    )
    place_of = reader([tmp_path / "a" / "1.jpg"], str(table))
    assert place_of(tmp_path / "a" / "1.jpg")[:5] == ("p", "A1", "", "", "2026-03-02T14:30")
    assert place_of(tmp_path / "b.jpg")[:2] == ("p", "A2")
    assert place_of(tmp_path / "c.jpg") == Place()


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            "(?P<plate>",
            r"--names \(\?P<plate> is not a regular expression: missing \), unterminated subpattern at position 0",
        ),
        ("[a-z]+_[A-Z]", "has neither plate nor well; give named groups"),
        ("(?P<date>.*)", "has neither plate nor well"),
        ("(?P<plate>.)(?P<row>.)", "has an unknown part 'row'"),
        ("(?P<plate>zzz)", "names none of the images"),
        ("none.csv", "none.csv. cannot be read: .*No such file"),
    ],
)
def test_names_that_cannot_be_used_are_refused_in_one_line(names, problem):
    with pytest.raises(InputError, match=problem) as error:
        reader(["03c3/A01.jpg"], names)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,plate\na.jpg,p\n", "has no column path"),
        ("path,date\na.jpg,2026\n", "has neither plate nor well; give columns"),
        ("path,plate\na.jpg\n", "line 2: 1 cells, the header has 2"),
        ("path,plate\na.jpg,p\n./a.jpg,q\n", "line 3: './a.jpg' is listed twice"),
        (
            "path,plate\nb.jpg,p\n",
            "names none of the images; compare it with their paths, which count from",
        ),
        ("path,plate,well,well\na.jpg,p,A1,B2\n", "has two columns well; keep one"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, problem):
    (tmp_path / "places.csv").write_text(text)
    with pytest.raises(InputError, match=problem) as error:
        reader([tmp_path / "a.jpg"], str(tmp_path / "places.csv"))
    assert "\n" not in str(error.value)


def test_empty_cells_beyond_the_columns_do_not_matter(tmp_path):
    (tmp_path / "places.csv").write_text("path,plate\na.jpg,p,,\n")
    assert reader([tmp_path / "a.jpg"], str(tmp_path / "places.csv"))(tmp_path / "a.jpg").plate == "p"


def test_cells_of_a_table_that_cannot_be_read_are_named_with_their_lines(tmp_path):
    table = tmp_path / "places.csv"
    rows = [
        "a.jpg,p,A1,2026-03-02 14:30,1",
        "b.jpg,p,Z99,,",
        "c.jpg,p,Z99,notadate,",
        "d.jpg,p,,2026-02-30,",
        "e.jpg,,,,",
    ]
    table.write_text("path,plate,well,date,inspection\n" + "\n".join(rows) + "\nf.jpg,p,0155,3/2/2026,first\n")
    with pytest.raises(InputError) as error:
        NamedPlaces(str(table))
    assert str(error.value) == (
        f"{table}, line 3 and 1 more: well is 'Z99'; line 4: date is 'notadate'; line 5: date is '2026-02-30'; line 7: "
        "date is '3/2/2026'; line 7: inspection is 'first'; expected a well from A1 to AF48, or four digits; a date "
        "such as 2026-11-26 or 2026-11-26T14:30, the year first; an inspection's number of at most 18 digits; an "
        "empty cell states nothing"
    )
    table.write_text("path,plate,well\n" + "".join(f"{n}.jpg,p,A{n}\n" for n in range(40, 65)))
    with pytest.raises(
        InputError, match="line 19: well is 'A57'; line 20: well is 'A58'; 6 more values like these; exp"
    ):
        NamedPlaces(str(table))


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("20260302", "2026-03-02"),
        ("2026/03/02 14:30:59.5", "2026-03-02T14:30"),
        ("2026-03-02 14h30", "2026-03-02T14:30"),
        ("3/2/2026", ""),
        ("2026-1-12", "2026-01-12"),
        ("2026-03-02 1:30", "2026-03-02T01:30"),
        ("2026/1/2 11:03:15", "2026-01-02T11:03"),
        ("2026/11/2 9:03:15", "2026-11-02T09:03"),
        ("2026年3月2日 14:30", "2026-03-02T14:30"),
        ("2026-03-02T14:30:00+01:00", "2026-03-02T14:30"),
        ("20260302T143005Z", "2026-03-02T14:30"),
        ("3/15/2021 8:12:30", ""),
        ("1/10/2012 8:12:30", ""),
        ("02.03.2026", ""),
        ("10.11.2012 10:11:12", ""),
        ("2026-03-02 1:30 PM", ""),
        ("2026-3-21430", ""),
        ("0001-01-01", ""),
        ("9999-01-01", ""),
    ],
)
def test_dates_that_could_be_read_in_several_ways_are_not_given(text, date):
    assert from_parts("x.jpg", {"plate": "p", "date": text}).date == date
    assert unreadable({"plate": "p", "date": text}) == ([] if date else ["date"])


@pytest.mark.parametrize(
    ("text", "inspection"),
    [
        *(("1", "1"), ("1.0", "1"), ("10", "10"), ("scan 3", "3"), ("day-07", "07")),
        *((text, "") for text in ("scan 3 of 12", "1/12", "1e3", "3,5", "1.5", "-3", "1" * 19)),
    ],
)
def test_an_inspection_is_one_number(text, inspection):
    assert from_parts("x.jpg", {"plate": "p", "inspection": text}).inspection == inspection
    assert unreadable({"plate": "p", "inspection": text}) == ([] if inspection else ["inspection"])


def test_drops_are_whole_numbers_also_if_pandas_wrote_them():
    assert [from_parts("x.jpg", {"plate": "p", "drop": drop}).drop for drop in ("2.0", "2", "a.0")] == ["2", "2", "a.0"]


def test_rows_for_files_that_are_not_among_the_images_are_counted(tmp_path):
    table = tmp_path / "places.csv"
    table.write_text("path,plate\na.jpg,p\nb.jpg,p\nx/a.jpg,p\n")
    files = [tmp_path / "a.jpg", tmp_path / "c.jpg"]
    note = "rows of --names for files that are not among the images: 2"
    assert unused_rows(reader(files, str(table)), files) == note
    assert unused_rows(reader(files, "(?P<plate>a)"), files) == unused_rows(reader(files), files) == ""
    (tmp_path / "labels.csv").write_text("filename,label\na.jpg,Clear\nc.jpg,Clear\n")
    assert label_tables.from_csv(tmp_path / "labels.csv", names=str(table)).notes == [note]
    (tmp_path / "set" / "Clear").mkdir(parents=True)
    (tmp_path / "set" / "Clear" / "a.jpg").touch()
    table.write_text("path,plate\na.jpg,p\nset/Clear/a.jpg,p\nx/a.jpg,p\n")
    assert label_tables.from_folder(tmp_path / "set", names=str(table)).notes == [note]


def test_records_are_named_by_their_file_names_where_these_are_clear(tmp_path):
    table = tmp_path / "places.csv"
    table.write_text("path,plate,well\nx/1.jpg,p,A1\ny/1.jpg,q,A1\nx/2.jpg,p,A2\ny/3.jpg,q,\nz/3.jpg,q,\n")
    named = pickle.loads(pickle.dumps(NamedPlaces(str(table))))
    assert [named.of_record(f"{number}.jpg").plate for number in (1, 2, 3, 4)] == ["", "p", "q", ""]
    expression = pickle.loads(pickle.dumps(NamedPlaces("(?P<plate>[a-z]+)-")))
    assert [expression.of_record(name).plate for name in ("ab-1.jpg", "1.jpg")] == ["ab", ""]


def test_a_table_that_changes_has_another_digest(tmp_path):
    table = tmp_path / "places.csv"
    table.write_text("path,plate\na.jpg,p\n")
    before = content_digest(str(table))
    table.write_text("path,plate\na.jpg,q\n")
    assert before and content_digest(str(table)) not in ("", before)
    assert content_digest("(?P<plate>.)") == content_digest(str(tmp_path / "none.csv")) == ""
