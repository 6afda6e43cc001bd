"""A step is reused only if its outputs are whole, and what is wrong with a store is said before the first step."""

import shutil
import sqlite3

import pytest

from components import mlflow_store
from marco_model import errors
from pipelines import local_runner

pytestmark = pytest.mark.slow  # TFX takes seconds to import.


def graph(output):
    """Returns a pipeline of two steps, the second of which reads what the first one wrote."""
    from tfx import v1 as tfx

    from tests.pipelines import two_steps

    made = two_steps.Make()
    return tfx.dsl.Pipeline(
        pipeline_name="two",
        pipeline_root=str(output / "pipeline"),
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(output / local_runner.STORE)
        ),
        components=[made, two_steps.Use(examples=made.outputs["examples"])],
        enable_cache=True,
    )


def run(output):
    """Returns the steps by name, and the lines that were shown."""
    output.mkdir(exist_ok=True)
    with local_runner.run_log(2, output / "run.log") as lines:
        shown = []
        lines._print = shown.append
        return local_runner.run_steps(graph(output), lines), "\n".join(shown)


def reused(steps):
    return [step.reused for step in steps.values()]


def change(path):
    path.write_text("shor")


@pytest.mark.long
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), change], ids=["lost", "cut"])
def test_a_step_that_lost_a_file_is_run_again_with_those_after_it(tmp_path, damage):
    first, _ = run(tmp_path)
    assert reused(first) == [False, False]
    with sqlite3.connect(tmp_path / local_runner.STORE) as connection:  # The clock has gone back a year since.
        connection.execute("UPDATE Execution SET create_time_since_epoch = create_time_since_epoch + 31536000000")
    damage(tmp_path.joinpath(first["Make"].outputs["examples"], "Split-train", "shard-2"))
    again, shown = run(tmp_path)
    assert reused(again) == [False, False]
    assert "Make/examples/1 has lost or changed Split-train/shard-2: the step is run again" in shown
    steps, shown = run(tmp_path)
    assert reused(steps) == [True, True] and "lost" not in shown
    assert steps["Make"].outputs == again["Make"].outputs


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_a_moved_folder_says_why_its_steps_are_run_again(tmp_path, move):
    run(tmp_path / "old")
    move(tmp_path / "old", tmp_path / "new")
    steps, shown = run(tmp_path / "new")
    assert reused(steps) == [False, False]
    assert f"the steps were run in {tmp_path}/old/pipeline and are run again here" in shown
    steps, shown = run(tmp_path / "new")
    assert reused(steps) == [True, True] and "/old" not in shown


@pytest.fixture
def database(tmp_path):
    with sqlite3.connect(tmp_path / local_runner.STORE) as connection:
        connection.execute("CREATE TABLE numbers (value)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(f"{number:0200}",) for number in range(500)])
    return tmp_path / local_runner.STORE


def test_a_whole_store_or_none_is_no_error(tmp_path, database):
    local_runner.check_store(tmp_path)
    database.unlink()
    local_runner.check_store(tmp_path)


@pytest.mark.parametrize("first, length", [(0, 100), (0, 40_000), (8192, 60_000)])
def test_a_damaged_store_is_one_line_with_the_fix(tmp_path, database, first, length):
    content = bytearray(database.read_bytes())
    database.write_bytes(content[:first] + bytes([255]) * 200 + content[first + 200 : length])
    with pytest.raises(errors.InputError, match=r"metadata.db is damaged \(.*\); delete it to run all steps again"):
        local_runner.check_store(tmp_path)


def test_a_locked_store_is_waited_for_and_then_named(tmp_path, database, monkeypatch):
    monkeypatch.setattr(mlflow_store, "_LOCK_SECONDS", 0.2)
    with sqlite3.connect(database, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(errors.InputError, match=r"another process has locked .*metadata.db"):
            local_runner.check_store(tmp_path)
        other.rollback()
    local_runner.check_store(tmp_path)


def test_a_store_of_another_version_of_ml_metadata_is_one_line(tmp_path):
    run(tmp_path)
    with sqlite3.connect(tmp_path / local_runner.STORE) as connection:
        connection.execute("UPDATE MLMDEnv SET schema_version = 999")
    with pytest.raises(errors.InputError, match=r"metadata.db cannot be used \(.*999.*\); delete it"):
        run(tmp_path)
