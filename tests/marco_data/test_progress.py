import re

import pytest

from marco_data import progress


@pytest.fixture
def clock(monkeypatch):
    times = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_off_a_terminal_it_prints_a_line_every_ten_seconds_and_at_the_end(clock, capsys):
    with progress.progress("reading", 8) as advance:
        for _ in range(8):
            advance()
    assert [re.match(r"reading: (\d)/8 images", line)[1] for line in lines(capsys)] == ["3", "6", "8"]


def test_the_rate_is_that_of_this_run(clock, capsys):
    with progress.progress("training", 102, "steps") as advance:
        advance(100, earlier=True)
        advance()
        advance()
    assert lines(capsys)[-1] == f"training: 102/102 steps, {2 / 12:.1f}/s"


def test_slow_work_has_seconds_instead_of_a_rate_of_zero(monkeypatch, capsys):
    times = iter(range(0, 1000, 25))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.progress("training", 1, "steps") as advance:
        advance()
    assert lines(capsys) == ["training: 1/1 steps, 25 s each"]
