"""Where MLflow's store is by default, and its first use by several processes."""

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request

import pytest
import typer.testing

from components import mlflow_runs, mlflow_store
from components.monitoring import watch
from marco_model.errors import InputError
from pipelines import cli
from tests import processes, stores
from tests.fakes import http_server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, without a store and without a variable that names one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_of_a_working_directory_share_one_store(folder, monkeypatch):
    assert mlflow_store.default_store() == f"sqlite:///{folder}/mlflow.db"
    assert mlflow_store.artifact_location(mlflow_store.default_store()) == f"file://{folder}/mlartifacts"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/other.db")
    assert mlflow_store.default_store() == f"sqlite:///{folder}/sub/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert mlflow_store.default_store() == "http://mlflow:5000"
    assert mlflow_store.default_store("sqlite:///third.db") == f"sqlite:///{folder}/third.db"
    assert list(folder.iterdir()) == []


def test_a_server_that_refuses_the_login_is_known_before_the_first_step(folder):
    class Refusing:
        """Answers as MLflow 3.17.2 with basic-auth (server/auth/__init__.py, `make_basic_auth_response`)."""

        def respond(self, request):
            if request.path == "/health":
                return http_server.Answer(200, b"OK")
            return http_server.Answer(401, b"You are not authenticated.", {"WWW-Authenticate": 'Basic realm="mlflow"'})

    expected = r"failed: .* 401 .*authenticated.*; set MLFLOW_TRACKING_USERNAME and"
    with http_server.serving(Refusing()) as address, pytest.raises(InputError, match=expected):
        mlflow_store.connect(address)


def test_a_host_that_a_server_refuses_is_not_taken_for_a_wrong_login():
    class Refusing:
        """Answers as MLflow 3.15 to a name that is not among its hosts (server/security_utils.py)."""

        def respond(self, request):
            if request.path == "/health":
                return http_server.Answer(200, b"OK")
            return http_server.Answer(403, b"Invalid Host header - possible DNS rebinding attack detected")

    expected = r"failed: .*Invalid Host header.*; add this host and port to --allowed-hosts of the server"
    with http_server.serving(Refusing()) as address, pytest.raises(InputError, match=expected):
        mlflow_store.connect(address)


def test_a_store_is_found_by_directory_by_run_and_by_uri(folder, monkeypatch):
    with pytest.raises(InputError, match=r"no MLflow store at sqlite:.*mlflow\.db; change to the directory"):
        mlflow_store.find_store()
    assert watch.store_of_checks("") == ""
    shared, own = folder / "mlflow.db", folder / "old/mlflow.db"
    own.parent.mkdir()
    for file in (shared, own):
        file.touch()
    assert mlflow_store.find_store() == watch.store_of_checks("") == f"sqlite:///{shared}"
    assert mlflow_store.find_store("old") == watch.store_of_checks("old") == f"sqlite:///{own}"
    (folder / "new").mkdir()
    (folder / "new/summary.json").write_text(json.dumps({"tracking_uri": f"sqlite:///{shared}"}))
    monkeypatch.chdir(folder / "new")
    assert mlflow_store.find_store("../new") == f"sqlite:///{shared}"
    assert mlflow_store.find_store("sqlite:///../mlflow.db") == f"sqlite:///{shared}"
    assert mlflow_store.find_store("http://mlflow:5000") == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        (
            "UPDATE alembic_version SET version_num = '97727af70f4d'",
            "make a copy of it, then run: mlflow db upgrade sqlite:",
        ),
        ("BEGIN EXCLUSIVE", "another process has locked"),
        (None, r"mlflow.db is damaged \(.*\); restore it from a copy, or move it away"),
    ],
    ids=["older", "locked", "cut"],
)
def test_what_is_wrong_with_a_store_is_said_at_its_first_use(folder, monkeypatch, statement, line):
    uri = stores.local_store(folder)
    monkeypatch.setattr(mlflow_store, "_LOCK_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db", isolation_level=None)) as other:
        if statement:
            other.execute(statement)
        else:
            os.truncate(folder / "mlflow.db", 200_000)
        with pytest.raises(InputError, match=line) as refused:
            mlflow_store.connect(uri)
    assert len(str(refused.value).splitlines()) == 1


def begin(uri, start, number):
    time.sleep(max(0.0, start - time.time()))
    run = mlflow_runs.open_run(uri, "marco", f"key{number}", f"run{number}")
    run.describe(note=f"note {number}")
    run.close()


@pytest.mark.long
def test_three_processes_begin_one_new_store_together(folder):
    uri, start = mlflow_store.default_store(), time.time() + 1
    begun = [processes.start(begin, uri, start, number, modules=["mlflow"]) for number in range(3)]
    for process in begun:
        with process:
            assert process.wait(120) == 0, process.stderr
    client = mlflow_store.connect(uri)
    experiment = client.get_experiment_by_name("marco")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    runs = client.search_runs([experiment.experiment_id])
    assert sorted((run.info.run_name, run.data.tags["mlflow.note.content"]) for run in runs) == [
        (f"run{number}", f"note {number}") for number in range(3)
    ]
    assert {path.name for path in folder.iterdir()} == {"mlflow.db"}


@pytest.mark.slow
def test_a_process_that_is_killed_or_stays_leaves_the_store_usable(folder, monkeypatch):
    monkeypatch.setattr(mlflow_store, "_FIRST_CONTACT_SECONDS", 0.2)
    script = (
        "import fcntl, os, sys; fcntl.flock(os.open('.', 0), fcntl.LOCK_EX); print('held'); sys.stdout.flush(); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        stores.local_store(folder)
        before = time.monotonic()
        mlflow_store.connect(f"sqlite:///{folder}/mlflow.db")
        assert 0.2 < time.monotonic() - before < 20
        holder.kill()
    with mlflow_store._first_contact(folder / "mlflow.db"):
        pass


@pytest.mark.slow
def test_a_store_that_cannot_be_made_is_reported_before_a_run_draws_its_data(folder):
    arguments = ["run", "--output", "out", "--set", "tracking.uri=sqlite:////proc/none/mlflow.db"]
    result = typer.testing.CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, InputError)
    assert "; see that its folder exists and can be written, or set another tracking URI" in str(result.exception)
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_an_experiment_of_an_earlier_version_moves_to_the_view_of_trainings(folder):
    uri = stores.local_store(folder)
    client = mlflow_store.connect(uri)
    old, chosen = client.create_experiment("old"), client.create_experiment("chosen")
    client.set_experiment_tag(chosen, "mlflow.experimentKind", "genai_development")
    for name in ("old", "chosen"):
        mlflow_store.find_experiment(client, uri, name)
    kinds = [client.get_experiment(identity).tags["mlflow.experimentKind"] for identity in (old, chosen)]
    assert kinds == ["custom_model_development", "genai_development"]


@pytest.mark.long
def test_marco_ui_shows_the_store_of_the_directory_to_this_machine_alone(folder):
    stores.local_store(folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run = mlflow_runs.open_run(mlflow_store.default_store(), "marco", "key", "first of all")
    with processes.marco("ui", "--port", port, "--no-browser", modules=["mlflow"]) as server:
        server.wait_for_output("/#/experiments/", 90)
        address = server.stdout.split()[-1]
        assert address == f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning"
        api = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/get?run_id={run.run_id}"
        with urllib.request.urlopen(api, timeout=30) as answer:
            assert json.load(answer)["run"]["info"]["run_name"] == "first of all"
        taken = mlflow_store.ui_server(run.tracking_uri, port)
        with pytest.raises(InputError, match=f"port {port} is taken; give another --port"), taken:
            pass
        server.send_signal(15)
        assert server.wait(60) == 143
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)


def test_a_new_store_whose_tables_are_not_complete_leaves_nothing(folder, monkeypatch):
    uri = mlflow_store.default_store()
    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk is full"):

        def fill_the_disk(tracking_uri):
            with contextlib.closing(sqlite3.connect(mlflow_store.sqlite_file(tracking_uri))) as database:
                database.execute("CREATE TABLE _alembic_tmp_params (key)")
            raise sqlite3.OperationalError("database or disk is full")

        patch.setattr(mlflow_store, "_open_client", fill_the_disk)
        mlflow_store.connect(uri)
    assert list(folder.iterdir()) == []
    assert mlflow_store.connect(uri).search_experiments()
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
