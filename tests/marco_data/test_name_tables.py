import csv
import io
from pathlib import Path

import pytest

from marco_data import inspection, label_tables, name_tables, overlay, place_reader
from marco_data.name_tables import IMAGER_RULES, TABLE_I, imager_of, parse_table, write_tables
from marco_model.errors import InputError

TWO = {0: "CSIRO", 3: "Bristol-Myers Squibb, NJ"}


@pytest.mark.parametrize(
    "text",
    [
        '0,CSIRO\n3,"Bristol-Myers Squibb, NJ"\n',
        'id,name\n0,CSIRO\n3,"Bristol-Myers Squibb, NJ"\n',
        '\ufeffname,id\r\nCSIRO,0\r\n"Bristol-Myers Squibb, NJ",3\r\n\r\n',
        "id;name\r\n0;CSIRO\r\n3;Bristol-Myers Squibb, NJ\r\n",
        "sep=;\n0;CSIRO\n3;Bristol-Myers Squibb, NJ\n",
        "0\tCSIRO\n3\tBristol-Myers Squibb, NJ\n",
    ],
)
def test_number_and_name_are_read_in_either_order_with_or_without_header(text):
    assert parse_table(text, "sources.csv") == TWO


def test_numbers_are_read_as_pandas_writes_them():
    assert parse_table("number,name\n0.0,CSIRO\n5.0,Lab Z\n", "table") == {0: "CSIRO", 5: "Lab Z"}


def test_a_name_with_commas_needs_no_quotes():
    assert parse_table("0,CSIRO\n5,Lab Z, Basel\n", "table") == {0: "CSIRO", 5: "Lab Z, Basel"}


def test_names_alone_are_numbered():
    assert (
        parse_table("CSIRO\nMerck\n", "table")
        == {0: "CSIRO", 1: "Merck"}
        == parse_table("name\nCSIRO\nMerck\n", "table")
    )


def test_names_alone_may_hold_other_separators():
    assert parse_table("needles; fused\nplates\tthin\n", "table") == {0: "needles; fused", 1: "plates\tthin"}
    assert parse_table("0,needles; fused\n1,a; 2\n", "table") == {0: "needles; fused", 1: "a; 2"}


def read_labels(path):
    return [image.path.name for image in label_tables.from_csv(path).images]


def read_places(path):
    return place_reader.NamedPlaces(str(path))(path.parent / "Kühn.jpg")


def read_rater(path):
    return overlay.read_answers(str(path))[0][1].rater


TABLES = {
    "sources.csv": (
        lambda path: name_tables.find_table(path.name, [], [str(path.parent / "train-1-of-1")]),
        "id,name\n0,Kühn\n1,CSIRO\n",
    ),
    "labels-raw.csv": (name_tables.read_table, "0,Kühn\n1,b\n"),
    "quarantine.csv": (
        lambda path: inspection.read_quarantine(str(path.parent)),
        "shard,offset,index,image_id,reason,detail\nKühn-1-of-1,0,0,1,bad_checksum,x\n",
    ),
    "labels.csv": (read_labels, "filename,label\nKühn.jpg,Clear\n"),
    "terf.csv": (read_labels, "image_path,image_id,label_id,label_text,label_raw,source\nKühn.jpg,1,0,Clear,3,1\n"),
    "places.csv": (read_places, "path,plate,well\nKühn.jpg,P1,A1\n"),
    "sheet.csv": (read_rater, "image_id,label,rater,date\n1,Clear,Kühn,2026-11-26\n"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_as_spreadsheets_save_them(tmp_path, name):
    read, text = TABLES[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    expected = read(tmp_path / name)
    assert expected
    for encoding in ("utf-8-sig", "utf-16"):
        for separator in ",;\t":
            saved = text.replace(",", separator).replace("\n", "\r\n")
            (tmp_path / name).write_bytes(saved.encode(encoding))
            assert read(tmp_path / name) == expected
    for content in (text.encode("cp1252"), text.encode("utf-16")[:-1]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}.*UTF-8"):
            read(tmp_path / name)


def test_a_table_is_read_as_it_was_written(tmp_path):
    write_tables(tmp_path)
    assert parse_table((tmp_path / "sources.csv").read_text(), "table") == TABLE_I


@pytest.fixture
def joined(tmp_path):
    """Two sets below a folder, whose tables give the number 5 two names, and their shards; and `write(path, text)`."""

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("a/sources.csv", "1,CSIRO\n5,Lab a\n")
    write("b/sources.csv", "1,CSIRO\n5,Lab b\n")
    return tmp_path, [str(tmp_path / name / "train-00001-of-00001") for name in "ab"], write


@pytest.mark.parametrize("folders", ["", "a b"])
def test_each_shard_has_the_table_beside_it(joined, folders):
    root, (first, second), _ = joined
    tables = name_tables.find_tables(
        "sources.csv", [str(root / name) for name in folders.split() or [""]], [first, second]
    )
    assert tables == {first: {1: "CSIRO", 5: "Lab a"}, second: {1: "CSIRO", 5: "Lab b"}}


def test_a_shard_without_a_table_beside_it_has_the_nearest_one_above_but_none_of_another_set(joined):
    root, (first, second), write = joined
    deep, other = str(root / "c" / "d" / "e" / "train-1-of-1"), str(root / "c" / "train-1-of-1")

    def find():
        tables = name_tables.find_tables("sources.csv", [str(root)], [first, second, deep, other])
        return tables[deep], tables[other]

    assert find() == (None, None)
    write("sources.csv", "5,above\n")
    assert find() == ({5: "above"}, {5: "above"})
    write("c/d/sources.csv", "5,near\n")
    assert find() == ({5: "near"}, {5: "above"})


def test_the_only_table_is_that_of_all_shards(joined):
    _, shards, _ = joined
    Path(shards[1]).with_name("sources.csv").unlink()
    assert list(name_tables.find_tables("sources.csv", [], shards).values()) == [{1: "CSIRO", 5: "Lab a"}] * 2


def test_tables_are_one_unless_a_number_has_two_names(joined):
    root, shards, write = joined
    with pytest.raises(
        InputError, match=r"^5 is 'Lab a' in \S+/a/sources\.csv and 'Lab b' in \S+/b/sources\.csv; make "
    ):
        name_tables.find_table("sources.csv", [str(root)], shards)
    write("b/sources.csv", "1,CSIRO\n6,Lab b\n")
    assert name_tables.find_table("sources.csv", [str(root)], shards) == {1: "CSIRO", 5: "Lab a", 6: "Lab b"}


@pytest.mark.parametrize("text", ["0,CSIRO\n0,Merck\n", "0,CSIRO\nMerck\n", "0,CSIRO\n1,2\n", "-5,Lab\n"])
def test_a_broken_table_is_one_clear_error(text):
    with pytest.raises(InputError, match=r"^sources.csv: [^\n]+$"):
        parse_table(text, "sources.csv")


@pytest.mark.parametrize(
    ("institution", "filename", "imager"),
    [
        ("Bristol-Myers Squibb", "drop.jpg", "Formulatrix Rock Imager"),
        ("CSIRO", "002s_C6_ImagerDefaults_9.jpg", "Formulatrix Rock Imager"),
        ("CSIRO", "002s_C6.jpg", "Rigaku Minstrel"),
        ("HWMRI", "X0000056271_0001.jpg", "HWMRI home system"),
        ("GlaxoSmithKline", "drop.jpg", "Formulatrix Rock Imager"),
        ("Merck", "drop.jpg", "Formulatrix Rock Imager"),
        ("another", "drop.jpg", "unknown"),
    ],
)
def test_institution_and_file_name_tell_the_imager(institution, filename, imager):
    assert imager_of(institution, filename) == imager


def test_the_documentation_lists_every_imager_rule():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for rule in IMAGER_RULES:
        assert any(rule.institution in row and rule.imager in row for row in rows)


FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1+1)", "\t=1", "\r=1", "＝1+1", "'=1", "''=1", "-"]
PLAIN = ["Clear", "'quoted'", "'", "-1.5", "+3", "-1e-7", "a=1", "1-2", "", "drop @ 4", "ünïcode"]


@pytest.mark.parametrize("text", FORMULAS + PLAIN)
def test_a_spreadsheet_gets_no_formula_and_the_text_comes_back(text):
    written = io.StringIO()
    name_tables.write_rows(written, [["name", text, 1.5, None]])
    ((_, cell, *others),) = csv.reader(io.StringIO(written.getvalue(), newline=""))
    assert cell == (f"'{text}" if text in FORMULAS else text) and others == ["1.5", ""]
    assert list(name_tables.read_rows(written.getvalue())) == [["name", text, "1.5", ""]]


def test_every_table_is_written_by_the_same_function():
    root = Path(name_tables.__file__).parents[1]
    packages = ("marco_model", "marco_data", "marco_scoring", "components", "pipelines")
    sources = {path: path.read_text() for package in packages for path in (root / package).rglob("*.py")}
    own = {path.name for path, text in sources.items() if "csv.writer(" in text or "to_csv(" in text}
    assert own == {"name_tables.py"}


def test_every_imager_rule_can_apply():
    for place, rule in enumerate(IMAGER_RULES):
        assert rule.institution not in {before.institution for before in IMAGER_RULES[:place] if before.pattern == ".*"}
