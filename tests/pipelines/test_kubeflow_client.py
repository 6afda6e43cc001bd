"""Submitting, following and scheduling, against a stand-in that speaks Kubeflow's API (kubeflow_api.py)."""

import json
import re
import socket
import time

import pytest
import typer.testing
import yaml

from marco_model.errors import ClusterError, InputError
from pipelines import cli, kubeflow_backend

PARAMETERS = {name: {"parameterType": "STRING"} for name in ("data", "steps", "run_label")}
STEPS = ("Data", "Trainer", "Pusher")


@pytest.fixture
def kubeflow(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("KF_PIPELINES_ENDPOINT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    from tests.fakes import kubeflow_api

    with kubeflow_api.running() as server:
        yield server


@pytest.fixture
def package(tmp_path):
    return write_package(tmp_path / "marco.yaml")


def write_package(path, note=""):
    spec = {
        "pipelineInfo": {"name": "marco-local"},
        "schemaVersion": "2.1.0",
        "sdkVersion": note,
        "deploymentSpec": {"executors": {}},
        "root": {"inputDefinitions": {"parameters": PARAMETERS}, "dag": {"tasks": {name: {} for name in STEPS}}},
    }
    path.write_text(yaml.safe_dump_all([spec, {"platforms": {"kubernetes": {}}}]))
    return path


def marco(server, command, *arguments, token=None):
    """Runs the command as a user would and returns exit status and output."""
    options = ["--host", server.url] if server else []
    result = typer.testing.CliRunner().invoke(cli.app, [command, *map(str, arguments), *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(kubeflow_backend.KubeflowBackend, "poll", 0.01)
    monkeypatch.setattr(kubeflow_backend.KubeflowBackend, "patience", 0.5)


def test_a_package_is_uploaded_once_and_again_when_it_changes(kubeflow, package, tmp_path):
    assert marco(kubeflow, "submit", package, "--no-wait")[0] == 0
    assert "was there already" in marco(kubeflow, "submit", package, "--no-wait")[1]
    for note in ("second", "third", "fourth"):
        assert "uploaded" in marco(kubeflow, "submit", write_package(package, note), "--no-wait")[1]
    assert "was there already" in marco(kubeflow, "submit", package, "--no-wait")[1]
    assert len(kubeflow.pipelines) == 1
    assert len(kubeflow.versions) == 4
    assert list(kubeflow.uploads.values())[-1] == package.read_bytes()
    assert b"platforms" in package.read_bytes()
    assert len(kubeflow.runs) == 6
    last = list(kubeflow.runs.values())[-1]
    assert last.pipeline_version_reference.pipeline_version_id == list(kubeflow.versions)[-1]


def test_a_run_gets_its_options(kubeflow, package):
    options = ("--steps", 20, "--run-label", "weekly: №7", "--parameter", "data=gs://bucket/a=b", "--no-wait")
    more = ("--service-account", "marco-pipeline", "--pipeline-root", "gs://bucket/runs", "--name", "a / b & c")
    assert marco(kubeflow, "submit", package, *options, *more)[0] == 0
    (run,) = kubeflow.runs.values()
    assert run.runtime_config.parameters == {"steps": "20", "run_label": "weekly: №7", "data": "gs://bucket/a=b"}
    assert run.runtime_config.pipeline_root == "gs://bucket/runs"
    assert (run.display_name, run.service_account) == ("a / b & c", "marco-pipeline")


@pytest.mark.slow
def test_a_runs_name_and_note_are_passed_to_mlflow(kubeflow, compiled):
    package = compiled.path("local.yaml")
    assert marco(kubeflow, "submit", package, "--name", "try 7", "--note", "colder", "--no-wait")[0] == 0
    (run,) = kubeflow.runs.values()
    assert run.runtime_config.parameters == {"run_name": "try 7", "note": "colder"}
    assert run.display_name == "try 7"


@pytest.mark.slow
def test_without_cache_a_run_carries_the_package_with_every_step_uncached(kubeflow, compiled):
    assert marco(kubeflow, "submit", compiled.path("local.yaml"), "--no-cache", "--no-wait")[0] == 0
    (run,) = kubeflow.runs.values()
    spec, platform = compiled.documents("local.yaml")
    tasks = run.pipeline_spec["pipeline_spec"]["root"]["dag"]["tasks"]
    assert tasks.keys() == spec["root"]["dag"]["tasks"].keys()
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())
    executors = run.pipeline_spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors == platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("retried", [False, True])
def test_a_run_is_followed_to_its_end_with_one_line_per_event_of_a_step(kubeflow, package, retried):
    kubeflow.retried = retried
    kubeflow.states = [
        ("PENDING", {}, None),
        ("RUNNING", {"root": "RUNNING", "Data": "RUNNING"}, None),
        ("RUNNING", {"Data": "SUCCEEDED", "Trainer": "RUNNING"}, None),
        ("SUCCEEDED", {"Data": "SUCCEEDED", "Trainer": "SUCCEEDED", "Pusher": "REUSED"}, None),
    ]
    looks = list(kubeflow.states)
    status, output = marco(kubeflow, "submit", package)
    assert status == 0
    kubeflow.states = looks
    (run,) = kubeflow.runs
    again = marco(kubeflow, "submit", "--follow", run)[1]
    assert [line for line in again.splitlines() if ": " in line] == step_lines(output)
    assert step_lines(output) == [
        "Data: running",
        "Data: done in 12 s",
        "Trainer: running",
        "Trainer: done in 12 s",
        "Pusher: unchanged, reused",
    ]
    assert "succeeded" in output.splitlines()[-1]


def step_lines(output):
    return [line for line in output.splitlines() if re.match(r"[\w-]+: (running|done|unchanged)", line)]


def test_a_failed_run_names_step_and_message(kubeflow, package):
    kubeflow.states = [("FAILED", {"Data": "SUCCEEDED", "Trainer": "FAILED: out of memory"}, "a step failed")]
    with pytest.raises(ClusterError, match=r"failed at Trainer \(out of memory\) .*/#/runs/details/"):
        marco(kubeflow, "submit", package)
    kubeflow.states = [("FAILED", {"Data": "SUCCEEDED", "Trainer": "FAILED"}, None)]
    with pytest.raises(ClusterError, match=rf"failed at Trainer; its log is at {kubeflow.url}/#/runs/details/"):
        marco(kubeflow, "submit", package)
    kubeflow.states = [("CANCELED", {}, "by hand")]
    with pytest.raises(ClusterError, match=r"ended as CANCELED \(by hand\)"):
        marco(kubeflow, "submit", package)


def test_a_failed_run_is_followed_by_others_as_often_as_wanted(kubeflow, package):
    failed = ("FAILED", {"Data": "SUCCEEDED", "Trainer": "FAILED: preempted"}, None)
    kubeflow.states = [failed, failed, ("SUCCEEDED", {"Data": "SUCCEEDED", "Trainer": "SUCCEEDED"}, None)]
    status, output = marco(kubeflow, "submit", package, "--resubmit", 3)
    assert status == 0
    assert len(kubeflow.runs) == 3
    assert "failed at Trainer (preempted)" in output
    assert "another run is started, 2 of 3 left" in output
    kubeflow.states = [failed]
    with pytest.raises(ClusterError, match="failed at Trainer"):
        marco(kubeflow, "submit", package, "--resubmit", 1)
    assert len(kubeflow.runs) == 5


def test_a_cancelled_run_is_not_submitted_again(kubeflow, package):
    kubeflow.states = [("CANCELED", {}, "by hand")]
    with pytest.raises(ClusterError, match="ended as CANCELED"):
        marco(kubeflow, "submit", package, "--resubmit", 3)
    assert len(kubeflow.runs) == 1


@pytest.mark.parametrize("option", [["--no-wait"], ["--follow", "0c7e"]])
def test_submitting_again_needs_a_run_to_follow(kubeflow, package, option):
    with pytest.raises(InputError, match="--resubmit 2 needs a run to follow"):
        marco(kubeflow, "submit", package, "--resubmit", 2, *option)


def test_following_survives_temporary_failures_and_gives_up_in_the_end(kubeflow, package):
    marco(kubeflow, "submit", package, "--no-wait")
    (run,) = kubeflow.runs
    kubeflow.states = [("RUNNING", {"Data": "RUNNING"}, None), ("SUCCEEDED", {"Data": "SUCCEEDED"}, None)]
    kubeflow.faults = [["GET .*/runs/", 503, 3]]
    assert marco(kubeflow, "submit", "--follow", run)[0] == 0
    assert kubeflow.faults[0][2] == 0
    kubeflow.faults = [["GET .*/runs/", 500, 10**6]]
    with pytest.raises(ClusterError, match=rf"failed .500: injected.*marco submit --follow {run}"):
        marco(kubeflow, "submit", "--follow", run)


def test_a_token_that_is_renewed_while_following_is_read_again_and_the_run_of_an_expired_one_is_named(
    kubeflow, package, tmp_path, monkeypatch
):
    marco(kubeflow, "submit", package, "--no-wait")
    (run,) = kubeflow.runs
    kubeflow.states = [("RUNNING", {}, None), ("RUNNING", {}, None), ("SUCCEEDED", {}, None)]
    (tmp_path / "token").write_text("first")
    kubeflow.token = "first"
    answer, renewed = kubeflow.answer, ["second"]

    def expiring(method, path, query, body):
        result = answer(method, path, query, body)
        if "/runs/" in path:
            kubeflow.token = "second"
            for token in renewed:
                (tmp_path / "token").write_text(token)
        return result

    monkeypatch.setattr(kubeflow, "answer", expiring)
    following = ("submit", "--follow", run, "--token-file", tmp_path / "token")
    assert marco(kubeflow, *following)[0] == 0
    kubeflow.states, kubeflow.token = [("RUNNING", {}, None)], "first"
    (tmp_path / "token").write_text("first")
    renewed.clear()
    with pytest.raises(InputError, match=rf"refuses \(401: .*; the run goes on: marco submit --follow {run}$"):
        marco(kubeflow, *following)


def test_an_unknown_run_is_reported(kubeflow):
    with pytest.raises(InputError, match=r"does not take this \(404: 'none' not found\)$"):
        marco(kubeflow, "submit", "--follow", "none")


def test_a_connection_that_is_cut_while_following_is_opened_again(kubeflow, package, monkeypatch):
    marco(kubeflow, "submit", package, "--no-wait")
    (run,) = kubeflow.runs
    kubeflow.states = [("SUCCEEDED", {"Data": "SUCCEEDED"}, None)]
    answer, cut = kubeflow.answer, []

    def cutting(method, path, query, body):
        if "/runs/" in path and len(cut) < 8:
            cut.append(path)
            raise ConnectionAbortedError
        return answer(method, path, query, body)

    monkeypatch.setattr(kubeflow, "answer", cutting)
    assert marco(kubeflow, "submit", "--follow", run)[0] == 0
    assert len(cut) == 8


def schedule_package(server, package, *options, cron="0 0 3 * * 1"):
    status, output = marco(server, "schedule", package, "--cron", cron, *options)
    assert status == 0, output
    return output.splitlines()[-1]


def test_scheduling_twice_gives_one_recurring_run(kubeflow, package):
    assert "marco-local made: 0 0 3 * * 1 (At 03:00 on Monday)" in schedule_package(kubeflow, package)
    (first,) = kubeflow.recurring
    assert "unchanged" in schedule_package(kubeflow, package)
    assert list(kubeflow.recurring) == [first]
    run = kubeflow.recurring[first]
    assert (run.display_name, run.mode, run.no_catchup) == ("marco-local", "ENABLE", True)
    assert int(run.max_concurrency) == 1
    assert run.trigger.cron_schedule.cron == "0 0 3 * * 1"


@pytest.mark.parametrize(
    "change", [("--steps", 20), ("--max-concurrency", 2), ("--service-account", "marco-pipeline"), ("--data", "gs://b")]
)
def test_a_change_replaces_the_schedule(kubeflow, package, change):
    schedule_package(kubeflow, package)
    (first,) = kubeflow.recurring
    assert "replaced" in schedule_package(kubeflow, package, *change)
    assert len(kubeflow.recurring) == 1
    assert first not in kubeflow.recurring
    assert "unchanged" in schedule_package(kubeflow, package, *change)


def test_a_changed_package_or_time_replaces_the_schedule_and_another_name_adds_one(kubeflow, package):
    schedule_package(kubeflow, package)
    assert "replaced" in schedule_package(kubeflow, package, cron="0 0 4 * * 1")
    assert "replaced" in schedule_package(kubeflow, write_package(package, "second"), cron="0 0 4 * * 1")
    for name in ("nightly", "weekly", "monthly"):
        assert "made" in schedule_package(kubeflow, package, "--name", name)
    assert len(kubeflow.recurring) == 4
    listed = marco(kubeflow, "schedule", "--list")[1].splitlines()
    assert sum("on" in line.split() for line in listed) == 4
    assert marco(kubeflow, "schedule", "--remove", "weekly")[0] == 0
    assert {run.display_name for run in kubeflow.recurring.values()} == {"marco-local", "nightly", "monthly"}
    with pytest.raises(InputError, match="there is no schedule 'weekly'"):
        marco(kubeflow, "schedule", "--remove", "weekly")


def test_listing_and_removing_create_no_experiment(kubeflow):
    assert marco(kubeflow, "schedule", "--list") == (0, "")
    with pytest.raises(InputError, match="there is no schedule 'weekly'"):
        marco(kubeflow, "schedule", "--remove", "weekly")
    with pytest.raises(InputError, match="there is no experiment 'typo'"):
        marco(kubeflow, "schedule", "--list", "--experiment", "typo", "--create-experiment")
    assert not kubeflow.experiments
    assert not any(request.startswith("POST") for request in kubeflow.requests)


def test_a_schedule_exists_at_all_times_and_a_leftover_is_removed_by_the_next_call(kubeflow, package):
    schedule_package(kubeflow, package)
    kubeflow.faults = [["DELETE .*recurringruns", 500, 1]]
    with pytest.raises(ClusterError, match="injected"):
        schedule_package(kubeflow, package, "--steps", 20)
    assert len(kubeflow.recurring) == 2
    assert "unchanged" in schedule_package(kubeflow, package, "--steps", 20)
    (left,) = kubeflow.recurring.values()
    assert left.runtime_config.parameters == {"steps": "20"}
    kubeflow.faults = [["POST .*recurringruns", 500, 1]]
    with pytest.raises(ClusterError, match="injected"):
        schedule_package(kubeflow, package, "--steps", 30)
    assert list(kubeflow.recurring.values()) == [left]


@pytest.mark.parametrize(
    ("cron", "taken"),
    [("0 0 3 * * 1", "0 0 3 * * 1"), ("0 3 * * 1", "0 0 3 * * 1"), ("0 30 2 ? * MON-FRI", "0 30 2 ? * MON-FRI")],
)
def test_cron_has_six_fields_and_a_second_is_added_to_five(cron, taken):
    assert kubeflow_backend.KubeflowBackend().read_cron(cron)[0] == taken


WRONG = ["", "daily", "0 0 25 * * *", "0 0 3 * * 9", "1 2 3 4 5 6 7", "0 0 3 * 13 *"]
# Valid elsewhere, refused by Kubeflow.
WRONG += ["0 0 3 * * 7", "0 0 3 * * 1-7", "0 0 3 L * *", "0 0 3 * * 5L", "0 0 3 * * 1#2"]


@pytest.mark.parametrize("cron", WRONG)
def test_a_wrong_cron_is_refused_before_anything_is_sent(kubeflow, package, cron):
    with pytest.raises(InputError, match=r"--cron .*(: [a-z].*; write|give) second"):
        marco(kubeflow, "schedule", package, "--cron", cron)
    assert kubeflow.requests == []


def test_a_named_experiment_must_exist(kubeflow, package):
    with pytest.raises(InputError, match=r"there is no experiment 'typo'.*--create-experiment"):
        marco(kubeflow, "submit", package, "--experiment", "typo", "--no-wait")
    assert not kubeflow.runs
    assert marco(kubeflow, "submit", package, "--experiment", "mine", "--create-experiment", "--no-wait")[0] == 0
    assert marco(kubeflow, "submit", package, "--experiment", "mine", "--no-wait")[0] == 0
    assert marco(kubeflow, "submit", package, "--no-wait")[0] == 0
    assert {experiment.display_name for experiment in kubeflow.experiments.values()} == {"mine", "marco"}


def test_a_token_is_sent_and_its_refusal_is_reported(kubeflow, package, tmp_path):
    kubeflow.token = "secret"
    with pytest.raises(InputError, match=r"refuses \(401: who are you\?\); give --token-file"):
        marco(kubeflow, "submit", package, "--no-wait")
    (tmp_path / "token").write_text("secret\n")
    assert marco(kubeflow, "submit", package, "--no-wait", "--token-file", tmp_path / "token")[0] == 0
    with pytest.raises(InputError, match=r"--token-file .* cannot be read"):
        marco(kubeflow, "submit", package, "--token-file", tmp_path / "none")


def test_a_host_that_does_not_listen_fails_at_once(package):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=r"cannot be reached .*refused.*port-forward"):
            kubeflow_backend.connect(nobody)
    with pytest.raises(InputError, match="cannot be reached"):
        kubeflow_backend.connect("http://nowhere.invalid")


@pytest.mark.parametrize("arguments", [("--list",), ("--remove", "weekly"), ("--list", "--experiment", "mine")])
def test_a_refusal_is_not_taken_for_a_missing_experiment(kubeflow, arguments):
    kubeflow.token = "secret"
    with pytest.raises(InputError, match=r"refuses \(401: who are you\?\); give --token-file"):
        marco(kubeflow, "schedule", *arguments)


def test_a_host_that_never_answers_is_given_up_within_seconds(monkeypatch):
    monkeypatch.setattr(kubeflow_backend, "_HEALTH_SECONDS", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(ClusterError, match=r"cannot be reached .*timed out"):
            kubeflow_backend.connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - begun < 10


def test_a_login_page_is_not_mistaken_for_an_answer(kubeflow, package):
    kubeflow.content_type = "text/html"
    with pytest.raises(InputError, match=rf"{kubeflow.url} answers with a page.* fix --host or give --token-file"):
        marco(kubeflow, "submit", package, "--no-wait")


def test_a_namespace_has_its_own_pipeline(kubeflow, package):
    marco(kubeflow, "submit", package, "--no-wait")
    for _ in range(2):
        assert marco(kubeflow, "submit", package, "--no-wait", "--namespace", "crystals")[0] == 0
    assert [pipeline.namespace for pipeline in kubeflow.pipelines.values()] == [None, "crystals"]
    assert len(kubeflow.versions) == 2


@pytest.mark.parametrize("content", ["", "a: 1", "- 1", "\x00", "pipelineInfo: {name: x}", None])
def test_a_file_that_is_not_a_package_is_refused(tmp_path, content):
    path = tmp_path / "other.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"give the \.yaml file that marco compile wrote"):
        kubeflow_backend.KubeflowBackend().read_package(path)


def test_a_package_for_vertex_ai_is_refused(kubeflow, package):
    package.write_text(json.dumps(next(yaml.safe_load_all(package.read_text()))))
    with pytest.raises(InputError, match=r"give the \.yaml file that marco compile wrote"):
        marco(kubeflow, "submit", package, "--no-wait")
    assert kubeflow.requests == []


def test_a_parameter_that_the_package_does_not_have_is_refused_before_anything_is_sent(kubeflow, package):
    with pytest.raises(InputError, match="no parameter stepz; it has data, run_label, steps"):
        marco(kubeflow, "submit", package, "--parameter", "stepz=3")
    with pytest.raises(InputError, match="'steps' has no '='"):
        marco(kubeflow, "submit", package, "--parameter", "steps")
    assert kubeflow.requests == []


@pytest.mark.slow
def test_a_compiled_package_is_read(compiled):
    package = kubeflow_backend.KubeflowBackend().read_package(compiled.path("local.yaml"))
    assert package.name == "marco-local"
    assert package.parameters == {"data", "steps", "run_label", "run_name", "note"}
    assert set(package.steps) >= {"Data", "MarcoExampleGen", "Trainer", "Pusher"}


@pytest.mark.parametrize("command", ["submit", "schedule"])
def test_help_teaches(command):
    status, output = marco(None, command, "--help")
    assert status == 0
    assert "Example: marco" in output
