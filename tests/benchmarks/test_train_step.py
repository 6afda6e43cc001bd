import json

import pytest

from benchmarks import train_step


@pytest.fixture
def step_options(monkeypatch):
    """Replaces our step by one that does next to nothing; holds the options of the steps that were made."""
    made = []

    def paper_step(**options):
        made.append(options)
        return lambda windows, targets: windows[0, 0, 0, 0]

    monkeypatch.setattr(train_step, "paper_step", paper_step)
    return made


def test_the_same_step_without_distortions_is_a_peer(step_options, capsys):
    train_step.main(["--batch-size", "2", "--rounds", "1", "--sizes", "151", "75", "--peer", "undistorted"])
    assert step_options == [{"input_size": 151}, {"augment": False, "input_size": 151}]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unit"] == "seconds for a step of 2 images"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("short_network")
def test_it_times_both_sides_and_reports_their_ratio(capsys):
    train_step.main(["--batch-size", "2", "--rounds", "1", "--sizes", "151", "75"])
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] > 0
    assert answer["peer"] > 0
    assert answer["ratio"] == pytest.approx(answer["ours"] / answer["peer"], rel=1e-2)
    assert answer["unit"] == "seconds for a step of 2 images"
