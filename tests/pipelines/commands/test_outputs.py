"""Every option that names an output is checked before its command begins, and what fails later is one line too."""

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marco_model import errors, store
from pipelines import backend, cli
from pipelines.cli import app
from pipelines.commands import options
from tests import processes

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


@pytest.mark.parametrize(
    ("command", "option"), [each for each in outputs() if each[0] not in FOLDERS and each[1] != "--contact-sheet"]
)
@pytest.mark.parametrize("name", ["first.jpeg", "new.TIF", "link.csv"])
def test_an_image_is_not_taken_for_an_output(command, option, name, tmp_path):
    """As where a shell makes several names of `--output *.jpeg`."""
    (tmp_path / "first.jpeg").write_text("kept")
    (tmp_path / "link.csv").symlink_to(tmp_path / "first.jpeg")
    assert "has the ending of an image" in refusal(command, option, tmp_path / name)
    assert (tmp_path / "first.jpeg").read_text() == "kept"


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


def ending(error, cause=None):
    """Returns the exit status that an error ends a command with."""
    with pytest.raises(SystemExit) as ended, errors.exit_status():
        raise error from cause
    return ended.value.code


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "make room, or give another place"),
        (errno.EACCES, "give this account access, or give another place"),
        (errno.EROFS, "give this account access, or give another place"),
        (errno.EMFILE, "raise the limit of open files (ulimit -n)"),
        (errno.EIO, "see that the disk or its server is well, and run again"),
        (errno.ENOENT, "see that it is there and was not changed meanwhile"),
    ],
)
def test_a_failure_of_the_system_is_one_line_with_its_own_exit_status(number, fix, capsys):
    assert ending(OSError(number, os.strerror(number), "table.csv")) == 74
    assert capsys.readouterr().err == f"error: table.csv: {os.strerror(number)}; {fix}\n"


@pytest.mark.parametrize(
    ("error", "cause", "status", "line"),
    [
        (OSError("odd"), None, 74, "error: odd; see that it is there"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), None, 74, "make room"),
        (RuntimeError("ckpt/variables; No space left on device"), None, 74, "make room"),  # TensorFlow's
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), None, 74, "make room"),
        (RuntimeError("ckpt/variables; Permission denied"), None, 74, "give this account access"),
        (errors.InputError("m cannot be read; fix"), OSError(errno.EIO, "Input/output error"), 74, "error: m cannot"),
        (errors.InputError("m cannot be read; fix"), PermissionError(errno.EACCES, "no"), 2, "error: m cannot"),
        (errors.InputError("the note says: No space left on device"), None, 2, "error: the note"),
        (errors.ClusterError("it fails"), None, 69, "error: it fails"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), None, 69, "error: Connection reset"),
        (backend.RunFailedError("the run failed"), None, 1, "error: the run failed"),
        (errors.Interrupted("stopped by SIGTERM", 15), None, 143, "stopped by SIGTERM"),
        (KeyError("a bug"), None, 70, "Traceback"),
    ],
)
def test_each_kind_of_end_has_its_own_exit_status(error, cause, status, line, capsys):
    assert ending(error, cause) == status
    text = capsys.readouterr().err
    assert line in text and (status == 70 or len(text.splitlines()) == 1)


def test_a_full_disk_of_a_beam_worker_is_known():
    with pytest.raises(OSError, match="No space left") as full, errors.expected_errors():
        raise RuntimeError("OSError: [Errno 28] No space left on device: '/x/a' [while running 'Stage']\n\nTraceback …")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "/x/a")


def marco(*arguments, stdout):
    """Runs `marco` in a process whose standard output is `stdout`; returns its exit status and stderr."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


def test_a_closed_pipe_ends_quietly_and_a_full_one_in_one_line():
    reader, writer = os.pipe()
    os.close(reader)
    assert marco("--help", stdout=writer) == (141, "")
    os.close(writer)
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            assert marco("--version", stdout=full) == (
                74,
                "error: No space left on device; make room, or give another place\n",
            )


def print_name(seekable):
    """Runs a command that prints the name of a file which is not UTF-8, on a standard output that was replaced."""
    if seekable:  # As where it was a file when Python started.
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(tempfile.mkstemp()[0], "w")), encoding="utf-8")
    reader, writer = os.pipe()
    os.dup2(writer, sys.stdout.fileno())
    os.close(writer)
    sys.argv[1:] = ["show", os.fsdecode(b"s\xef")]
    app.command("show")(lambda name: typer.echo(f"written: {name}"))
    try:
        cli.main()
    finally:
        print(os.read(reader, 100).decode(), file=sys.stderr)


@pytest.mark.parametrize("seekable", [False, True])
def test_names_that_are_not_utf_8_are_printed(seekable):
    with processes.start(print_name, seekable, modules=["pipelines.cli"]) as process:
        assert process.wait(60) == 0, process.stderr
    assert process.stderr.strip() == r"written: s\udcef"


def skip_if_ignored(name: str) -> None:
    """Skips where what started the tests had them ignore the signal, as nohup and a shell's `&` do."""
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored in this process")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_any_command_in_one_line(name, capsys):
    skip_if_ignored(name)
    whole = store.whole_file("never.csv")
    with pytest.raises(SystemExit) as ended, errors.exit_status(), options.stopped_by_signals(), whole:
        os.kill(os.getpid(), getattr(signal, name))
    assert ended.value.code == 128 + getattr(signal, name)
    assert capsys.readouterr().err == f"stopped by {name}\n"
    assert not list(Path().glob("*never.csv*"))


def hang(patience: float) -> None:
    """Waits as a library may that does not hear of the signal, in the block and when the process ends."""
    threading.Thread(target=time.sleep, args=[60]).start()
    with errors.exit_status(), options.stopped_by_signals(patience=patience):
        try:
            print("waits", flush=True)
            time.sleep(60)
        finally:
            time.sleep(60 if patience < 1 else 0)


@pytest.mark.parametrize("patience", [0.5, 1.5])
def test_a_command_ends_some_time_after_a_signal_whatever_still_runs(patience):
    with processes.start(hang, patience, modules=["pipelines.cli"]) as process:
        process.wait_for_output("waits")
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert patience <= time.monotonic() - begun < 20
    assert process.stderr.splitlines()[-1] == "stopped by SIGTERM, before everything in the process had ended"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_that_a_library_takes_for_an_error_of_its_own_is_the_signal(name, capsys):
    skip_if_ignored(name)
    with pytest.raises(SystemExit) as ended, errors.exit_status(), options.stopped_by_signals():
        try:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(5)
        except BaseException:
            raise errors.InputError("model.onnx cannot be read (initialization failed)") from None
    assert ended.value.code == 128 + getattr(signal, name)
    assert capsys.readouterr().err == f"stopped by {name}\n"


def test_a_signal_while_an_object_is_deleted_ends_the_command_in_one_line(capsys):
    class Stopped:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    with pytest.raises(SystemExit) as ended, errors.exit_status(), options.stopped_by_signals():
        stopped = Stopped()
        del stopped
        errors.end_if_stopped()
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_what_a_signal_left_incomplete_does_not_appear(tmp_path):
    (tmp_path / "scores.csv").write_text("old")
    with (
        pytest.raises(errors.Interrupted),
        options.stopped_by_signals(),
        store.whole_file(tmp_path / "scores.csv") as file,
    ):
        with contextlib.suppress(BaseException):  # As a library that goes on.
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        file.write("half")
    assert (tmp_path / "scores.csv").read_text() == "old"
    with store.whole_file(tmp_path / "scores.csv") as file:
        file.write("new")


def test_a_signal_is_no_error_that_damaged_files_raise():
    assert not issubclass(errors.Interrupted, Exception)
