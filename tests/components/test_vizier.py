"""The oracle on a gRPC server with Vizier's protocol, through Google's own client."""

import json
import math
import socket

import grpc
import keras_tuner
import pytest
from google.api_core.exceptions import FailedPrecondition
from keras_tuner.engine.base_tuner import BaseTuner

from components import search as searches
from components.search import parameter_spec, value_of
from marco_model.errors import InputError
from tests.fakes import vizier_service


def space():
    searched = keras_tuner.HyperParameters()
    searched.Float("recipe.learning_rate", 1e-4, 1e-1, sampling="log")
    searched.Int("recipe.batch_size", 8, 64)
    searched.Choice("recipe.optimizer", ["adam", "rmsprop"])
    searched.Fixed("recipe.momentum", 0.9)
    return searched


def loss(values):
    """Closed form, best at a learning rate of 0.01, 32 images and adam."""
    rate = math.log10(values["recipe.learning_rate"]) + 2
    images = (values["recipe.batch_size"] - 32) / 32
    return rate**2 + images**2 + (values["recipe.optimizer"] != "adam")


class Killed(BaseException):
    """Derives from BaseException, so that it ends a search as a signal does."""


class Search(BaseTuner):
    """Evaluates `loss`; `fate` maps the id of a trial to the error that ends it."""

    def __init__(self, oracle, directory, fate=None):
        self.fate = fate or {}
        self.ran = []
        super().__init__(oracle, directory=str(directory), project_name="search")

    def run_trial(self, trial, **_):
        self.ran.append((trial.trial_id, dict(trial.hyperparameters.values)))
        if trial.trial_id in self.fate:
            raise self.fate[trial.trial_id]
        return {"loss": loss(trial.hyperparameters.values)}


@pytest.fixture
def service():
    return vizier_service.VizierService()


@pytest.fixture
def client(service):
    with vizier_service.serving(service) as served:
        yield served


def oracle(client, hyperparameters=None, direction="min", max_trials=6):
    return searches.VizierOracle(
        project="crystals",
        region="europe-west4",
        study="images",
        objective=keras_tuner.Objective("loss", direction),
        hyperparameters=hyperparameters or space(),
        max_trials=max_trials,
        client=client,
        seed=3,
    )


def test_search_finds_the_best_of_what_was_suggested(service, client, tmp_path):
    search = Search(oracle(client), tmp_path)
    search.search(verbose=0)
    study = service.studies["images"]
    assert study.name == "projects/crystals/locations/europe-west4/studies/100"
    trials = service.trials_of(study.name)
    assert [trial.state for trial in trials] == [vizier_service.SUCCEEDED] * 6
    suggested = [{entry.parameter_id: entry.value for entry in trial.parameters} for trial in trials]
    best = min(suggested, key=loss)
    values = search.get_best_hyperparameters()[0].values
    assert values == {**best, "recipe.momentum": 0.9}
    assert isinstance(values["recipe.batch_size"], int)
    assert [trial.final_measurement.metrics[0].value for trial in trials] == [loss(values) for values in suggested]
    assert len({values["recipe.learning_rate"] for _, values in search.ran}) == 6


@pytest.mark.parametrize("direction, goal", [("min", "MINIMIZE"), ("max", "MAXIMIZE")])
def test_study_states_whether_it_minimizes_or_maximizes(service, client, direction, goal):
    oracle(client, direction=direction)
    [metric] = service.studies["images"].study_spec.metrics
    assert (metric.metric_id, metric.goal.name) == ("loss", goal)


@pytest.mark.parametrize("folder_is_lost", [False, True])
def test_killed_search_continues_with_the_same_trial(service, client, tmp_path, folder_is_lost):
    first = Search(oracle(client), tmp_path / "a", fate={"2": Killed()})
    with pytest.raises(Killed):
        first.search(verbose=0)
    second = Search(oracle(client), tmp_path / ("b" if folder_is_lost else "a"))
    second.search(verbose=0)
    assert second.ran[0] == first.ran[2]
    assert [trial_id for trial_id, _ in second.ran] == ["2", "3", "4", "5"]
    trials = service.trials_of(service.studies["images"].name)
    assert [trial.state for trial in trials] == [vizier_service.SUCCEEDED] * 6
    scores = sorted(loss(values) for _, values in first.ran[:2] + second.ran)
    assert [trial.score for trial in second.oracle.get_best_trials(6)] == pytest.approx(scores, rel=1e-12)


@pytest.mark.parametrize("reported", [False, True])
def test_search_killed_while_it_reports_a_trial_to_vizier(service, client, tmp_path, monkeypatch, reported):
    first = Search(oracle(client), tmp_path)

    def killed(trial):
        if reported or trial.trial_id != "1":
            searches.VizierOracle._report(first.oracle, trial)
        if trial.trial_id == "1":
            raise Killed

    monkeypatch.setattr(first.oracle, "_report", killed)
    with pytest.raises(Killed):
        first.search(verbose=0)
    second = Search(oracle(client), tmp_path)
    second.search(verbose=0)
    assert [trial_id for trial_id, _ in second.ran] == ["2", "3", "4", "5"]
    trials = service.trials_of(service.studies["images"].name)
    measured = [trial.final_measurement.metrics[0].value for trial in trials]
    assert measured == [loss(values) for _, values in first.ran + second.ran]


def test_search_killed_while_a_trial_is_written(service, client, tmp_path, monkeypatch):
    first = Search(oracle(client), tmp_path)
    write = first.oracle.save

    def killed():
        if "2" in first.oracle.trials:
            raise Killed
        write()

    monkeypatch.setattr(first.oracle, "save", killed)
    with pytest.raises(Killed):
        first.search(verbose=0)
    assert (tmp_path / "search" / "trial_2" / "trial.json").exists()
    second = Search(oracle(client), tmp_path)
    second.search(verbose=0)
    assert [trial_id for trial_id, _ in second.ran] == ["2", "3", "4", "5"]
    trials = service.trials_of(service.studies["images"].name)
    assert [trial.state for trial in trials] == [vizier_service.SUCCEEDED] * 6


def test_names_of_viziers_trials_are_kept(client, tmp_path):
    search = Search(oracle(client, max_trials=2), tmp_path)
    search.search(verbose=0)
    study = "projects/crystals/locations/europe-west4/studies/100"
    kept = json.loads((tmp_path / "search" / "oracle.json").read_text())["vizier_trials"]
    assert kept == {"0": f"{study}/trials/1", "1": f"{study}/trials/2"}


def test_failed_trial_is_infeasible_and_stays_so(service, client, tmp_path):
    fate = {"1": keras_tuner.errors.FailedTrialError("the loss is no number"), "3": ValueError("no")}
    Search(oracle(client), tmp_path / "a", fate=fate).search(verbose=0)
    trials = service.trials_of(service.studies["images"].name)
    assert [number for number, trial in enumerate(trials) if trial.state == vizier_service.INFEASIBLE] == [1, 3]
    assert "the loss is no number" in trials[1].infeasible_reason
    again = Search(oracle(client), tmp_path / "b")
    again.search(verbose=0)
    assert again.ran == []
    assert [again.oracle.trials[key].status for key in "0123"] == ["COMPLETED", "FAILED", "COMPLETED", "FAILED"]


def test_search_stops_when_vizier_has_no_more(service, client, tmp_path):
    service.exhausted_after = 2
    search = Search(oracle(client), tmp_path)
    search.search(verbose=0)
    assert len(search.ran) == 2


def test_two_workers_get_two_trials(client, tmp_path):
    shared = oracle(client)
    shared._set_project_dir(str(tmp_path), "search")
    first, other = shared.create_trial("tuner0"), shared.create_trial("tuner1")
    assert (first.status, other.status) == ("RUNNING", "RUNNING")
    assert first.hyperparameters.values != other.hyperparameters.values
    assert shared.create_trial("tuner0") is first


def test_worker_waits_for_the_one_that_took_over_its_trial(client, tmp_path):
    killed = oracle(client)
    killed._set_project_dir(str(tmp_path), "search")
    left = killed.create_trial("tuner0")
    shared = oracle(client)
    shared._set_project_dir(str(tmp_path), "search")
    shared.reload()
    assert shared.create_trial("tuner1").hyperparameters.values == left.hyperparameters.values
    assert shared.create_trial("tuner0").status == "IDLE"


def test_short_outage_is_survived(service, client, tmp_path):
    search = Search(oracle(client, max_trials=1), tmp_path)
    service.outages = 1
    search.search(verbose=0)
    assert len(search.ran) == 1 and service.outages == 0


def test_study_of_another_space_or_objective_is_refused(client):
    oracle(client)
    wider = keras_tuner.HyperParameters()
    wider.Float("recipe.learning_rate", 1e-5, 1e-1, sampling="log")
    for changes in ({"hyperparameters": wider}, {"direction": "max"}):
        with pytest.raises(InputError, match="'images' in project crystals, region europe-west4 searches another"):
            oracle(client, **changes)


def hyperparameter(kind, *args, **kwargs):
    return getattr(keras_tuner.engine.hyperparameters, kind)("x", *args, **kwargs)


@pytest.mark.parametrize(
    "parameter, spec, suggested, value",
    [
        (hyperparameter("Float", 0, 1), {"double_value_spec": {"min_value": 0.0, "max_value": 1.0}}, 1.0 + 1e-12, 1.0),
        (hyperparameter("Int", 2, 5), {"integer_value_spec": {"min_value": 2, "max_value": 5}}, 4.0, 4),
        (hyperparameter("Choice", [64, 16]), {"discrete_value_spec": {"values": [16.0, 64.0]}}, 64.0, 64),
        (hyperparameter("Choice", ["b", "a"]), {"categorical_value_spec": {"values": ["b", "a"]}}, "a", "a"),
        (hyperparameter("Choice", [3, 1], ordered=False), {"categorical_value_spec": {"values": ["3", "1"]}}, "1", 1),
    ],
)
def test_hyperparameters_become_parameters_and_back(parameter, spec, suggested, value):
    wire_form = parameter_spec(parameter)
    assert wire_form.pop("scale_type", "UNIT_LINEAR_SCALE") == "UNIT_LINEAR_SCALE"
    assert wire_form == {"parameter_id": "x", **spec}
    returned = value_of(parameter, suggested)
    assert returned == value and type(returned) is type(value)


def test_scales():
    log = parameter_spec(hyperparameter("Float", 1e-3, 1, sampling="log"))
    reverse = parameter_spec(hyperparameter("Int", 1, 9, sampling="reverse_log"))
    assert [log["scale_type"], reverse["scale_type"]] == ["UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"]


def test_permission_denied_is_one_line(service, client):
    service.refuse = (grpc.StatusCode.PERMISSION_DENIED, "Permission 'aiplatform.studies.create' denied")
    with pytest.raises(InputError) as raised:
        oracle(client)
    assert str(raised.value) == (
        "Vizier in project crystals, region europe-west4: 403 Permission 'aiplatform.studies.create' denied; "
        "check the project, enable its Vertex AI API and give your account Vertex AI User"
    )


def test_refusal_in_the_middle_of_a_search_ends_it(service, client, tmp_path):
    search = Search(oracle(client), tmp_path)
    service.refuse = (grpc.StatusCode.NOT_FOUND, "Study not found")
    with pytest.raises(InputError, match="404 Study not found; check the project and the region"):
        search.search(verbose=0)


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(searches, "_RETRY_SECONDS", 0.2)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        with pytest.raises(InputError, match=r"region europe-west4: .*check the region and the network") as raised:
            oracle(vizier_service.client_of(free.getsockname()[1]))
    assert "\n" not in str(raised.value)


def test_missing_credentials_are_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"project crystals, region europe-west4: .*gcloud auth application-default"):
        oracle(None)


@pytest.mark.parametrize("missing", ["project", "region"])
def test_project_and_region_must_be_given(missing):
    place = {"project": "crystals", "region": "europe-west4", missing: ""}
    with pytest.raises(InputError, match=f"{missing} ''"):
        searches.VizierOracle(
            **place,
            study="images",
            objective=keras_tuner.Objective("loss", "min"),
            hyperparameters=space(),
            max_trials=1,
        )


def test_stand_in_is_strict(service, client, tmp_path):
    """Reporting the end of a trial twice must be an error."""
    Search(oracle(client, max_trials=1), tmp_path).search(verbose=0)
    [trial] = service.trials_of(service.studies["images"].name)
    with pytest.raises(FailedPrecondition):
        client.complete_trial(request={"name": trial.name, "trial_infeasible": True})
