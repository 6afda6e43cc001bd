import os
from pathlib import Path

import pytest

from marco_scoring.prediction import result_tables
from marco_scoring.score_table import errors_path


def test_both_tables_appear_at_the_end_and_the_second_only_where_something_failed(tmp_path):
    output = tmp_path / "new" / "scores.csv"
    with result_tables(output, ("path", "score")) as (write, write_failure):
        write(("a.jpg", 1))
        write_failure(("b.jpg", "empty"))
        assert not output.exists()
    assert output.read_text().splitlines() == ["path,score", "a.jpg,1"]
    assert errors_path(output).read_text().splitlines() == ["path,reason", "b.jpg,empty"]
    with result_tables(output, ("path", "score")) as (write, _):
        write(("b.jpg", 2))
    assert [path.name for path in output.parent.iterdir()] == ["scores.csv"]


def test_an_existing_table_is_kept_if_writing_fails(tmp_path):
    output = tmp_path / "scores.csv"
    output.write_text("old")
    with pytest.raises(RuntimeError), result_tables(output, ("path",)):
        raise RuntimeError("stopped")
    assert output.read_text() == "old"


def test_a_name_that_is_not_utf_8_costs_nothing_and_can_be_read(tmp_path):
    name = os.fsdecode(b"tr\xf6pfchen.png")
    output = tmp_path / "scores.csv"
    with result_tables(output, ("path", "plate", "score")) as (write, write_failure):
        write((Path(name), name, 1.5))
        write_failure((Path("tröpfchen.png"), f"{name} is empty"))
    assert output.read_text("utf-8").splitlines()[1] == r"tr\xf6pfchen.png,tr\xf6pfchen.png,1.5"
    assert errors_path(output).read_text("utf-8").splitlines()[1] == r"tröpfchen.png,tr\xf6pfchen.png is empty"
