import contextlib
import json
import os

import pytest

import benchmarks
from benchmarks import train_step
from marco_model import recipe


def test_a_process_has_the_settings_of_its_side_alone(monkeypatch):
    for name in recipe.TENSORFLOW_DEFAULTS:
        monkeypatch.setenv(name, "of this machine")
    with benchmarks.own_process(recipe.TENSORFLOW_DEFAULTS) as ours, benchmarks.own_process({}) as peer:
        for name, value in recipe.TENSORFLOW_DEFAULTS.items():
            assert ours(os.getenv, name) == value
            assert peer(os.getenv, name) is None
            assert os.environ[name] == "of this machine"


SMALL = ["--batch-size", "2", "--rounds", "1", "--sizes", "151", "75"]


@pytest.mark.parametrize(
    ("peer", "sides"),
    [
        ("keras", [(1, "ours", 151), (0, "keras", 75)]),
        ("keras-onednn", [(1, "ours", 151), (1, "keras", 75)]),
        ("undistorted", [(1, "ours", 151), (1, "undistorted", 151)]),
    ],
)
def test_each_peer_has_its_step_and_its_kernels(monkeypatch, capsys, peer, sides):
    calls = []

    @contextlib.contextmanager
    def own_process(variables):
        yield lambda function, *arguments: calls.append((len(variables) > 0, *arguments))

    monkeypatch.setattr(benchmarks, "own_process", own_process)
    train_step.main([*SMALL, "--peer", peer])
    assert calls[:2] == [(*side, 2, 3) for side in sides]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unit"] == "seconds for a step of 2 images"


@pytest.mark.long
@pytest.mark.usefixtures("short_network")
def test_the_same_step_without_distortions_is_a_peer():
    plain, distorted = (train_step.take(name, 151, 2, 1) for name in ("undistorted", "ours"))
    assert plain != distorted


@pytest.mark.long
@pytest.mark.slow
def test_it_times_both_sides_and_reports_their_ratio(capsys):
    train_step.main(SMALL)
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["ours"] > 0
    assert answer["peer"] > 0
    assert answer["ratio"] == pytest.approx(answer["ours"] / answer["peer"], rel=1e-2)
    assert answer["unit"] == "seconds for a step of 2 images"
