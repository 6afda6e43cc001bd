from pathlib import Path

import pytest

from marco_data.name_tables import IMAGER_RULES, TABLE_I, imager_of, parse_table, write_tables
from marco_model.errors import InputError

TWO = {0: "CSIRO", 3: "Bristol-Myers Squibb, NJ"}


@pytest.mark.parametrize(
    "text",
    [
        '0,CSIRO\n3,"Bristol-Myers Squibb, NJ"\n',
        'id,name\n0,CSIRO\n3,"Bristol-Myers Squibb, NJ"\n',
        '\ufeffname,id\r\nCSIRO,0\r\n"Bristol-Myers Squibb, NJ",3\r\n\r\n',
    ],
)
def test_number_and_name_are_read_in_either_order_with_or_without_header(text):
    assert parse_table(text, "sources.csv") == TWO


def test_names_alone_are_numbered():
    assert (
        parse_table("CSIRO\nMerck\n", "table")
        == {0: "CSIRO", 1: "Merck"}
        == parse_table("name\nCSIRO\nMerck\n", "table")
    )


def test_a_table_is_read_as_it_was_written(tmp_path):
    write_tables(tmp_path)
    assert parse_table((tmp_path / "sources.csv").read_text(), "table") == TABLE_I


@pytest.mark.parametrize("text", ["0,CSIRO\n0,Merck\n", "0,CSIRO\nMerck\n", "0,CSIRO\n1,2\n"])
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
