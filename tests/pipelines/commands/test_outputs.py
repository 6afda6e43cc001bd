"""Every option that names an output is checked before its command begins, and what fails later is one line too."""

import errno
import os
import tempfile
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marco_model import errors, store
from pipelines.cli import app
from pipelines.commands import options

FILES = {"--report", "--contact-sheet", "--json", "--csv", "--scores"}
FOLDERS = {"run", "explain", "released", "data import", "data ingest", "data synthesize", "monitor reference"}
FOLDERS |= {"monitor check", "relabel export", "data export"}


def outputs():
    """Yields each command and its option of an output."""

    def walk(command, names):
        context = command.context_class(command)
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            yield from walk(command.get_command(context, name), [*names, name])
        for parameter in command.params:
            option = parameter.opts[0]
            # These are a URI, and a table that is read.
            if (" ".join(names), option) in (("deploy batch", "--output"), ("data import", "--csv")):
                continue
            if option == "--output" or option in FILES:
                yield " ".join(names), option

    return sorted(walk(typer.main.get_command(app), []))


def refusal(command, option, value):
    result = CliRunner().invoke(app, [*command.split(), option, str(value)])
    assert isinstance(result.exception, errors.InputError), (result.exception, result.output)
    message = str(result.exception)
    assert len(message.splitlines()) == 1 and str(value) in message
    return message


def test_the_outputs_of_all_commands_are_known():
    assert {command for command, _ in outputs()} >= {"predict", "relabel merge", "compile", "compare", "deploy batch"}
    assert {command for command, option in outputs() if option == "--output"} >= FOLDERS - {"data export"}


@pytest.mark.parametrize(("command", "option"), outputs())
def test_an_output_that_cannot_be_written_is_refused_at_once(command, option, tmp_path, monkeypatch):
    is_folder = option == "--output" and command in FOLDERS
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    assert "not a folder" in refusal(command, option, tmp_path / "file" / "new" / "place")
    if is_folder:
        refusal(command, option, tmp_path / "file")
    else:
        assert "is a folder" in refusal(command, option, tmp_path / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "file" / "gone")
    refusal(command, option, tmp_path / "link" / "place" if is_folder else tmp_path / "link")

    def refuse(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert "Permission denied" in refusal(command, option, tmp_path / "folder" / "new")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refusal("predict", "--output", tmp_path / "locked" / "scores.csv")


def test_a_device_may_be_an_output():
    assert options.output_file(types.SimpleNamespace(opts=["--output"]), Path("/dev/null")) == Path("/dev/null")


def test_a_device_is_written_and_a_link_keeps_its_place(tmp_path):
    with store.whole_file("/dev/null") as file:
        file.write("gone")
    assert store.is_stream("/dev/null") and store.is_stream("/dev/stdout")
    target = tmp_path / "target" / "table.csv"
    target.parent.mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    with store.whole_file(link) as file:
        file.write("new")
    assert link.is_symlink() and target.read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_is_full_later_is_one_line(number, capsys):
    with pytest.raises(SystemExit) as ended, errors.exit_status():
        raise OSError(number, os.strerror(number), "table.csv")
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: table.csv: {os.strerror(number)}; make room, or give another place\n"


def test_other_errors_of_the_system_keep_their_traceback():
    with pytest.raises(OSError, match="odd"), errors.exit_status():
        raise OSError("odd")
