"""Secrets that a user gives by mistake, or keeps in the environment, never come out of a command again."""

import http.client
import http.server
import json
import logging
import sys
import threading

import pytest
import typer.main
import yaml

from components import mlflow_runs, mlflow_store
from marco_model import errors
from pipelines import cli, configuration, run_comparison

SECRET = "CANARY-4f1d"
URIS = (
    f"http://user:{SECRET}@127.0.0.1:9",
    f"http://{SECRET}@127.0.0.1:9/path",
    f"https://user:a@{SECRET}@host/x",
    f"https://user:with/{SECRET}@host",
    f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:9/mlflow",
    f"https://bucket.host/data?X-Goog-Algorithm=a&X-Goog-Signature={SECRET}&x=1",
    f"https://host/x?sig={SECRET}",
    f"https://host/x?page=1&X-Amz-Security-Token={SECRET}",
    f"https://host/x?key={SECRET}",
    f"https://host/x#access_token={SECRET}",
)
QUOTED = (
    # What requests, http.client (twice) and a server say of a header, or of a proxy, that ends with a line or a slash.
    f"Invalid leading whitespace, reserved character(s), or return character(s) in header value: 'Bearer {SECRET}\\n'",
    f"Invalid header value b'Bearer {SECRET}\\n'",
    f"nonnumeric port: '{SECRET}'",
    f"unknown token: Bearer {SECRET}",
)
COMPILED = ("--root", "gs://bucket/runs", "--output", "package.yaml")
PLAIN = (
    "http://mlflow:5000/a@b",
    "gs://bucket/folder@v1/*.tfrecord?",
    "sqlite:////folder/user:name@host/mlflow.db",
    "registry.example/marco@sha256:0123",
    "https://host/x?design=a&page=2",
    "http://mlflow:5000 is not for user@host",
    "Basic understanding and a header value",
)


@pytest.mark.parametrize("uri", URIS)
def test_credentials_are_left_out_of_a_message(uri, capsys):
    assert SECRET not in errors.redacted(f"MLflow at {uri} failed") and "***" in errors.redacted(uri)
    assert SECRET not in errors.one_line(OSError(f"{uri!r}: refused"))
    with pytest.raises(SystemExit), errors.exit_status():
        raise errors.ClusterError(f"{uri} failed")
    assert SECRET not in capsys.readouterr().err
    with pytest.raises(errors.InputError, match="MLFLOW_TRACKING_PASSWORD, on a cluster by") as raised:
        errors.refuse_credentials(f"key: {uri}", "a file")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("text", QUOTED)
def test_what_a_library_quotes_is_left_out_of_a_message(text, capsys):
    assert SECRET not in str(errors.InputError(text)) + errors.one_line(text)
    with pytest.raises(SystemExit), errors.exit_status():
        raise RuntimeError(text)
    shown = capsys.readouterr().err
    assert SECRET not in shown and "Traceback" in shown


def test_a_header_that_cannot_be_sent_ends_in_one_line(capsys):
    connection = http.client.HTTPConnection("127.0.0.1", 9)
    connection.putrequest("GET", "/")
    with pytest.raises(SystemExit) as ended, errors.exit_status():
        connection.putheader("Authorization", f"Bearer {SECRET}\n")
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and "holds a line break" in shown and len(shown.splitlines()) == 1
    assert SECRET not in shown


def test_a_long_message_is_cut_after_its_credentials_are_left_out():
    signature = SECRET * 100
    for message in (
        f"no data at https://host/x?sig={signature}",
        f"{'x' * 990}http://user:{signature}@host",
        "x" * 10**6,
    ):
        text = str(errors.InputError(message))
        assert len(text) <= errors.MAX_CHARACTERS and SECRET not in text


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_stay_as_they_are(text):
    assert errors.redacted(text) == text
    errors.refuse_credentials(text, "a text")


def commands():
    """Yields the words of each command and its parameters."""

    def walk(command, names):
        context = command.context_class(command)
        if not hasattr(command, "list_commands"):
            yield names, command.params
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            yield from walk(command.get_command(context, name), [*names, name])

    return list(walk(typer.main.get_command(cli.app), []))


@pytest.mark.parametrize(("names", "parameters"), commands(), ids=["-".join(names) for names, _ in commands()])
def test_every_command_refuses_them_in_every_option(names, parameters, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for parameter in parameters:
        option = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        monkeypatch.setattr(sys, "argv", ["marco", *names, *option, URIS[0]])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = "".join(capsys.readouterr())
        assert ended.value.code == 2 and "holds credentials (http://***@127.0.0.1:9), " in output
        assert SECRET not in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["run", "--preset", "own.yaml", "--output", "out"], marks=pytest.mark.slow),
        pytest.param(["compile", "--preset", "own.yaml", *COMPILED], marks=pytest.mark.slow),
        pytest.param(["compile", "--preset", "beam.yaml", *COMPILED], marks=pytest.mark.slow),
        ["run", "--preset", "beam.yaml", "--output", "out"],
        ["deploy", "status", "--preset", "beam.yaml"],
        ["submit", "package.yaml", "--host", "http://127.0.0.1:9"],
        ["schedule", "package.yaml", "--host", "http://127.0.0.1:9", "--cron", "0 0 3 * * 1"],
        ["models", "list"],
        ["ui", "--no-browser"],
        ["compare", "1", "2"],
    ],
    ids=" ".join,
)
def test_files_and_the_environment_are_refused_too(arguments, monkeypatch, capsys, tmp_path):
    from pipelines import kubeflow_backend

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kubeflow_backend, "connect", lambda *_: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URIS[0])
    preset = yaml.safe_load((configuration.PRESETS / "local.yaml").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**preset, "tracking": {"uri": URIS[0]}}))
    beam = {"tracking": {"uri": "http://mlflow:5000"}, "beam": [f"--proxy={URIS[0]}"]}
    (tmp_path / "beam.yaml").write_text(yaml.safe_dump({**preset, **beam}))
    spec = {"pipelineInfo": {"name": "marco"}, "root": {"dag": {"tasks": {}}}, "x": f'{{"uri": "{URIS[0]}"}}'}
    (tmp_path / "package.yaml").write_text(yaml.safe_dump_all([spec, {}]))
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(sys, "argv", ["marco", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output = "".join(capsys.readouterr())
    assert ended.value.code == 2 and "holds credentials" in output and SECRET not in output
    assert {path.name for path in tmp_path.iterdir()} == before


def test_the_address_of_kubeflow_in_the_environment_is_refused_too(monkeypatch, capsys, tmp_path):
    (tmp_path / "package.yaml").write_text(
        "pipelineInfo: {name: marco}\nroot: {dag: {tasks: {}}}\n---\nplatforms: {kubernetes: {}}\n"
    )
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", URIS[0])
    monkeypatch.setattr(sys, "argv", ["marco", "submit", str(tmp_path / "package.yaml"), "--no-wait"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output = "".join(capsys.readouterr())
    assert ended.value.code == 2 and "--host holds credentials" in output and SECRET not in output


def test_logs_leave_out_what_libraries_write_of_them(tmp_path, capsys):
    from pipelines import local_runner

    with local_runner.run_log(1, tmp_path / "run.log"):
        logging.getLogger("urllib3").warning("%s", URIS[0])
        logging.getLogger("components").warning("%s", URIS[0])
        try:
            raise RuntimeError(QUOTED[0])
        except RuntimeError:
            logging.getLogger("tfx").exception("a step failed")
    log = (tmp_path / "run.log").read_text()
    assert "a step failed" in log and "Traceback" in log and log.count("***") == 3
    assert SECRET not in log + capsys.readouterr().err


@pytest.fixture
def server():
    """A server that a file of somebody else's names; it keeps the `Authorization` of every request."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            received.append(self.headers.get("Authorization"))
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", received
        listening.shutdown()


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"])
def test_a_file_does_not_choose_the_server_that_gets_credentials(variable, server, monkeypatch, tmp_path):
    uri, received = server
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv(variable, SECRET)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "evaluation").mkdir()
    named = {"tracking_uri": uri, "mlflow_run_id": "0" * 32, "evaluation": "evaluation"}
    for file in ("training.json", "summary.json"):
        (tmp_path / file).write_text(json.dumps(named))
    readers = {
        "training.json": lambda: mlflow_runs.run_of_model(str(tmp_path)).tags(),
        "summary.json": lambda: run_comparison.find_judged(str(tmp_path), "", None),
        "summary.json names": lambda: mlflow_store.connect(mlflow_store.find_store(str(tmp_path))).get_run("1"),
    }
    for file, read in readers.items():
        with pytest.raises(errors.InputError, match=f"{file}.*; if you trust that server, set MLFLOW_TRACKING_URI="):
            read()
    assert not received
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{uri}/")
    with pytest.raises(errors.InputError, match=r"MLflow at .+ (failed|refuses)"):
        readers["training.json"]()
    assert any(received)


def test_a_server_without_credentials_and_that_of_the_run_are_used(monkeypatch, tmp_path):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mlflow_store.trust("http://mlflow:5000", "a file") == "http://mlflow:5000"
    with pytest.raises(errors.InputError, match="postgresql"):
        mlflow_store.trust("postgresql://host/mlflow", "a file")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setenv(mlflow_store.RUN_VARIABLE, "http://mlflow:5000")
    assert mlflow_store.trust("http://mlflow:5000", "a file") == "http://mlflow:5000"
    assert mlflow_store.trust("sqlite:///mlflow.db", "a file") == "sqlite:///mlflow.db"
