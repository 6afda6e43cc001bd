"""`marco submit` and `marco schedule` with `--target vertex`, against a stand-in for Vertex AI's REST API."""

import json

import pytest
import typer.testing

from components.vertex import api, options
from marco_model.errors import ClusterError, InputError
from pipelines import cli, vertex_backend

STEPS = ("Data", "Trainer", "Pusher")


@pytest.fixture
def vertex(monkeypatch):
    from tests.fakes import vertex_api

    quick = api.Pace(tries=4, first=1e-4, longest=1e-4, look=0)
    monkeypatch.setattr(api.Api.__init__, "__defaults__", (quick, api.show))
    with vertex_api.running() as service:
        yield service


@pytest.fixture
def package(tmp_path):
    return write_package(tmp_path / "marco.json")


def write_package(path, note=""):
    parameters = {name: {"parameterType": "STRING"} for name in ("data", "steps", "run_label")}
    tasks = {name: {"taskInfo": {"name": name}, "cachingOptions": {"enableCache": True}} for name in STEPS}
    spec = {
        "pipelineInfo": {"name": "marco-local"},
        "schemaVersion": "2.1.0",
        "sdkVersion": note,
        "defaultPipelineRoot": "gs://bucket/runs/pipeline",
        "root": {"inputDefinitions": {"parameters": parameters}, "dag": {"tasks": tasks}},
    }
    path.write_text(json.dumps(spec))
    return path


def marco(service, command, *arguments):
    options = ["--target", "vertex", "--project", "crystals", "--location", "europe-west4", "--api", service.url]
    result = typer.testing.CliRunner().invoke(cli.app, [command, *map(str, arguments), *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def looks(*answers):
    """Returns updates of a run, one per request: each sets its state and those of its steps."""
    from google.cloud.aiplatform_v1 import types
    from google.rpc.status_pb2 import Status

    def look(state, tasks, message=""):
        def update(job):
            job.state = f"PIPELINE_STATE_{state}"
            details = []
            for name, outcome in tasks.items():
                task_state, _, text = outcome.partition(": ")
                start, end = {"seconds": 1767571200}, {"seconds": 1767571212}
                detail = types.PipelineTaskDetail(task_name=name, state=task_state, start_time=start, end_time=end)
                if text:
                    detail.error = Status(code=9, message=text)
                details.append(detail)
            job.job_detail = types.PipelineJobDetail(task_details=details)
            if message:
                job.error = Status(code=9, message=message)

        return update

    return [look(*answer) for answer in answers]


def test_a_run_gets_its_options_and_is_started_once(vertex, package):
    options = ("--steps", 20, "--run-label", "weekly: №7", "--service-account", "marco@crystals.iam", "--no-wait")
    marco(vertex, "submit", package, "--pipeline-root", "gs://other/runs", *options)
    (job,) = vertex.jobs["pipelineJobs"].values()
    assert dict(job.runtime_config.parameter_values) == {"steps": "20", "run_label": "weekly: №7"}
    assert job.runtime_config.gcs_output_directory == "gs://other/runs"
    assert job.service_account == "marco@crystals.iam"
    assert job.pipeline_spec["root"]["dag"]["tasks"]["Trainer"]["cachingOptions"]["enableCache"] is True
    marco(vertex, "submit", package, "--no-wait", "--no-cache")
    last = list(vertex.jobs["pipelineJobs"].values())[-1]
    tasks = last.pipeline_spec["root"]["dag"]["tasks"]
    assert not any(task["cachingOptions"]["enableCache"] for task in tasks.values())
    assert last.runtime_config.gcs_output_directory == "gs://bucket/runs/pipeline"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", [429, 500, "cut"])
def test_an_error_while_starting_starts_no_second_run(vertex, package, what, when):
    done = []

    def fault(index, method, path):
        if method == "POST" and not done:
            done.append(path)
            return what, when
        return None

    vertex.fault = fault
    marco(vertex, "submit", package, "--no-wait")
    assert done and len(vertex.jobs["pipelineJobs"]) == 1


def test_a_run_is_followed_to_its_end_with_one_line_per_event_of_a_step(vertex, package, capfd):
    vertex.states = looks(
        ("PENDING", {}),
        ("RUNNING", {"marco-local": "RUNNING", "Data": "RUNNING"}),
        ("RUNNING", {"Data": "SUCCEEDED", "Trainer": "RUNNING"}),
        ("SUCCEEDED", {"Data": "SUCCEEDED", "Trainer": "SUCCEEDED", "Pusher": "SKIPPED"}),
    )
    vertex.fault = lambda index, method, path: (503, "before") if index == 5 else None
    output = marco(vertex, "submit", package)
    assert "succeeded" in output.splitlines()[-1]
    lines = [line for line in (output + capfd.readouterr().err).splitlines() if ": " in line]
    assert lines == [
        "Data: running",
        "Data: done in 12 s",
        "Trainer: running",
        "Trainer: done in 12 s",
        "Pusher: unchanged, reused",
    ]


def test_a_failed_run_names_step_and_message(vertex, package):
    vertex.states = looks(("FAILED", {"Data": "SUCCEEDED", "Trainer": "FAILED: out of memory"}, "a step failed"))
    with pytest.raises(ClusterError, match=r"at Trainer \(out of memory\) \(a step failed\); its log is at https"):
        marco(vertex, "submit", package)
    (run,) = vertex.jobs["pipelineJobs"]
    vertex.states = looks(("CANCELLED", {}))
    with pytest.raises(ClusterError, match="ended as CANCELLED"):
        marco(vertex, "submit", "--follow", run)
    vertex.states = []
    with pytest.raises(InputError, match="there is no run 'none' in crystals"):
        marco(vertex, "submit", "--follow", "none")


def schedule_package(vertex, package, *options, cron="TZ=Europe/Berlin 0 3 * * 1"):
    return marco(vertex, "schedule", package, "--cron", cron, *options).splitlines()[-1]


def test_scheduling_twice_gives_one_schedule_and_a_change_replaces_it(vertex, package):
    assert "marco-local made: TZ=Europe/Berlin 0 3 * * 1 (At 03:00 on Monday, Europe/Berlin)" in schedule_package(
        vertex, package
    )
    (first,) = vertex.jobs["schedules"]
    assert "unchanged" in schedule_package(vertex, package)
    assert list(vertex.jobs["schedules"]) == [first]
    schedule = vertex.jobs["schedules"][first]
    assert schedule.cron == "TZ=Europe/Berlin 0 3 * * 1"
    assert (schedule.max_concurrent_run_count, schedule.max_concurrent_active_run_count) == (1, 1)
    assert not schedule.allow_queueing
    for change in ((), ("--steps", 20), ("--max-concurrency", 2)):
        assert "replaced" in schedule_package(vertex, package, *change, cron="0 4 * * 1")
        assert len(vertex.jobs["schedules"]) == 1
    assert "replaced" in schedule_package(vertex, write_package(package, "second"))
    for name in ("nightly", "weekly", "monthly"):
        assert "made" in schedule_package(vertex, package, "--name", name)
    assert sum("on" in line.split() for line in marco(vertex, "schedule", "--list").splitlines()) == 4
    marco(vertex, "schedule", "--remove", "weekly")
    assert {schedule.display_name for schedule in vertex.jobs["schedules"].values()} == {
        "marco-local",
        "nightly",
        "monthly",
    }
    with pytest.raises(InputError, match="there is no schedule 'weekly'"):
        marco(vertex, "schedule", "--remove", "weekly")


def test_an_error_at_any_request_of_a_replacement_leaves_one_schedule(vertex, package):
    schedule_package(vertex, package)
    begun = len(vertex.requests)
    schedule_package(vertex, package, "--steps", 1)
    count = len(vertex.requests) - begun
    assert count >= 5
    for number in range(count):
        for fault in ((500, "before"), ("cut", "after")):
            at = len(vertex.requests) + number
            seen = []
            vertex.watch = lambda seen=seen: seen.append(len(vertex.jobs["schedules"]))
            vertex.fault = lambda index, method, path, at=at, fault=fault: fault if index == at else None
            schedule_package(vertex, package, "--steps", 10 + at)
            assert len(vertex.jobs["schedules"]) == 1 and min(seen) >= 1


@pytest.mark.parametrize("cron", ["0 3 * * 1", "TZ=America/New_York 30 2 * * MON-FRI", "CRON_TZ=UTC */15 * * * *"])
def test_cron_has_five_fields_and_an_optional_time_zone(cron):
    assert (
        vertex_backend.VertexBackend(options.Vertex(project="crystals", location="europe-west4"))
        .read_cron(cron)[0]
        .endswith(cron.split("UTC ")[-1].split("York ")[-1])
    )


@pytest.mark.parametrize("cron", ["", "daily", "0 0 3 * * 1", "0 25 * * *", "TZ=Mars/Olympus 0 3 * * 1", "TZ=UTC"])
def test_a_wrong_cron_is_refused_before_anything_is_sent(vertex, package, cron):
    with pytest.raises(InputError, match=r"--cron .*(give|write) minute"):
        marco(vertex, "schedule", package, "--cron", cron)
    assert vertex.requests == []


def test_a_file_that_is_not_a_package_is_refused(vertex, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    for path in ("other.json", "none.json"):
        with pytest.raises(InputError, match=r"give the \.json file that marco compile --target vertex wrote"):
            marco(vertex, "submit", tmp_path / path)


def test_wrong_options_are_refused_before_anything_is_sent(vertex, package):
    with pytest.raises(InputError, match="no parameter stepz; it has data, run_label, steps"):
        marco(vertex, "submit", package, "--parameter", "stepz=3")
    with pytest.raises(InputError, match="--namespace: Vertex AI has none"):
        marco(vertex, "submit", package, "--namespace", "mine")
    result = typer.testing.CliRunner().invoke(cli.app, ["submit", str(package), "--target", "vertex"])
    assert isinstance(result.exception, InputError) and "--project is None" in str(result.exception)
    assert vertex.requests == []
