"""The process around a step, with real child processes and signals."""

import os
import signal
import stat
import sys
import textwrap

import pytest

from components.steps import attempts
from tests import processes

# Writes which attempt this is to the file that argument 1 names, then does what argument 1 + attempt says.
STEP = textwrap.dedent("""
    import os, pathlib, signal, sys, time
    file = pathlib.Path(sys.argv[1])
    attempt = len(file.read_text()) + 1 if file.exists() else 1
    file.write_text("x" * attempt)
    deed = sys.argv[min(attempt + 1, len(sys.argv) - 1)]
    if deed == "wait":
        print("waiting", flush=True)
        time.sleep(60)
    if deed.startswith("signal"):
        os.kill(os.getpid(), int(deed.removeprefix("signal ")))
        time.sleep(60)
    sys.exit(int(deed))
""")


def command(folder, *deeds):
    return [sys.executable, "-c", STEP, str(folder / "attempts"), *deeds]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(attempts, "WAIT_SECONDS", 0.01)


def made(folder):
    return len((folder / "attempts").read_text())


@pytest.mark.parametrize(
    ("deeds", "status", "count"),
    [
        (["0"], 0, 1),
        (["1", "0"], 0, 2),
        (["137", "1", "0"], 0, 3),
        ([f"signal {signal.SIGKILL:d}", "0"], 0, 2),
        ([f"signal {signal.SIGSEGV:d}"], 139, 3),
        (["1"], 1, 3),
        (["2", "0"], 2, 1),
        (["1", "2", "0"], 2, 2),
    ],
)
def test_a_step_is_repeated_where_the_exit_status_is_worth_it(tmp_path, deeds, status, count):
    assert attempts.run(command(tmp_path, *deeds), retries=2) == status
    assert made(tmp_path) == count


def test_the_log_names_the_attempt(tmp_path, capsys):
    attempts.run(command(tmp_path, "137"), retries=1)
    assert capsys.readouterr().err.splitlines() == [
        "marco: attempt 1 of 2 ended with exit status 137; again in 0 s",
        "marco: attempt 2 of 2 ended with exit status 137; the step fails",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_nothing_is_repeated(tmp_path, number):
    with processes.start(run_and_exit, command(tmp_path, "wait"), modules=()) as process:
        process.wait_for_output("waiting")
        process.send_signal(number)
        process.wait(30)
    assert process.returncode in (128 + number, 1)  # Python ends with 1 at the KeyboardInterrupt of SIGINT.
    assert made(tmp_path) == 1


def run_and_exit(arguments):
    sys.exit(attempts.run(arguments, retries=2))


@pytest.mark.parametrize(
    ("retries", "node", "left"),
    [
        (None, None, 0),
        ("2", None, 2),
        ("2", "marco-x7k2p.root.Trainer.executor(0)", 2),
        ("2", "marco-x7k2p.root(0).Trainer(0).executor(1)", 1),
        ("2", "marco-x7k2p.root.Trainer.executor(3)", 0),
        ("2", "marco-x7k2p.root(1).Trainer.executor", 2),
    ],
)
def test_pods_that_argo_started_before_count_as_attempts(monkeypatch, retries, node, left):
    for name, value in {attempts.RETRIES: retries, attempts.NODE: node}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert attempts.retries_left() == left


def test_only_user_and_group_may_change_what_a_step_writes(tmp_path, monkeypatch):
    (tmp_path / "step.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).touch()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = os.umask(0)  # As Argo's executor leaves it.
    try:
        assert attempts.main(["step", str(tmp_path / "model")]) == 0
    finally:
        os.umask(before)
    assert stat.filemode((tmp_path / "model").stat().st_mode) == "-rw-rw-r--"
