import json
import pathlib

import pytest

from components import search
from components.search import oracle, search_job, search_space, trial_job
from components.settings import Tuning
from components.trainer import execution
from marco_model.errors import InputError, Interrupted
from marco_model.recipe import Engine
from tests import small_training

pytestmark = pytest.mark.usefixtures("short_network")

SPACE = {
    "recipe.learning_rate": {"min": 1e-4, "max": 1e-1, "sampling": "log"},
    "recipe.batch_size": {"min": 2, "max": 8},
    "network.variant": {"choices": ["paper", "released"]},
}


@pytest.fixture
def small_job(tmp_path):
    return small_training.small_job(tmp_path)


@pytest.mark.parametrize("name", ["random", "bayesian", "hyperband"])
def test_oracles_suggest_values_of_the_fields_types_within_their_limits(name, tmp_path):
    suggesting = oracle(Tuning(space=SPACE, oracle=name, trials=4), "study")
    suggesting._set_project_dir(str(tmp_path), "search")
    for _ in range(4):
        values = suggesting.create_trial("tuner0").hyperparameters.values
        assert 1e-4 <= values["recipe.learning_rate"] <= 1e-1
        assert values["recipe.batch_size"] in range(2, 9)
        assert type(values["recipe.batch_size"]) is int
        assert values["network.variant"] in ("paper", "released")


def test_a_trial_is_the_job_with_other_values_and_a_place_of_its_own(small_job):
    job = trial_job(small_job, {"recipe.momentum": 0.5, "tuner/bracket": 1, "network.variant": "released"}, 40, "3")
    assert (job.recipe.steps, job.recipe.evaluate_every, job.recipe.momentum) == (40, 4, 0.5)
    assert job.recipe.learning_rate == small_job.recipe.learning_rate
    assert job.network.variant == "released"
    assert job.checkpoints == f"{small_job.checkpoints}/trial-3"
    assert job.key != small_job.key


def test_another_space_is_another_search_and_more_trials_are_the_same(small_job):
    first, more, other = (
        search_job(small_job.model_copy(update={"tuning": Tuning(space=SPACE, trials=trials, steps=steps)}))
        for trials, steps in ((4, 10), (5, 10), (4, 20))
    )
    assert first.model_copy(update={"tuning": more.tuning}) == more
    assert len({first.key, other.key, small_job.key}) == 3
    assert first.checkpoints != other.checkpoints


def test_trials_on_several_machines_are_refused(small_job):
    job = small_job.model_copy(update={"tuning": Tuning(space=SPACE)})
    with pytest.raises(InputError, match=r"engine\.kind is parameter_server; trials run on one machine"):
        search.run_search(job)


@pytest.mark.long
@pytest.mark.slow
def test_a_search_finds_the_better_rate_and_continues_after_an_interruption(small_job, monkeypatch):
    tuning = Tuning(
        space={"recipe.learning_rate": {"choices": [1e-12, 0.003, 1e30]}}, oracle="random", trials=3, steps=20
    )
    job = small_job.model_copy(update={"engine": Engine(), "tuning": tuning})
    assert search_space(tuning).space[0].values == [1e-12, 0.003, 1e30]
    begun = []

    def stopped_in_the_second(job, *rest):
        begun.append(job.recipe.learning_rate)
        if len(begun) == 2:
            raise Interrupted("stopped", 15)
        return train(job, *rest)

    train = execution.train
    monkeypatch.setattr(execution, "train", stopped_in_the_second)
    with pytest.raises(Interrupted):
        search.run_search(job)
    best, trials = search.run_search(job)
    assert begun[1] == begun[2], "the trial that was stopped is taken up"
    assert sorted(begun[:1] + begun[2:]) == [1e-12, 0.003, 1e30]
    assert best["values"] == {"recipe.learning_rate": 0.003}
    assert [trial["recipe.learning_rate"] for trial in trials] == [0.003, 1e-12]
    folder = pathlib.Path(search_job(job).checkpoints)
    states = [json.loads(path.read_text()) for path in folder.glob("search/trial_*/trial.json")]
    assert sorted(state["status"] for state in states) == ["COMPLETED", "COMPLETED", "FAILED"]
