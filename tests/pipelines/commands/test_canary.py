"""No output of a command holds a secret of the user's: what it prints, files, packages, MLflow, buckets, logs.

`canary_calls` says which secrets each call reads, and the services of `canary_world` confirm it. All that was written
is searched by `canary_search`.
"""

import base64
import csv
import gzip
import io
import json
import shlex
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import pytest
import typer.main
import yaml

from pipelines import cli
from tests import processes
from tests.pipelines import canary_calls, canary_search, canary_world

CALLS = canary_calls.CALLS


def command_names(command, names=()):
    if not hasattr(command, "list_commands"):
        return {" ".join(names)}
    context = command.context_class(command)
    inner = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return set().union(*(command_names(item, (*names, name)) for name, item in inner.items()))


def test_every_command_has_calls_and_every_secret_is_read_by_one():
    assert set(CALLS) == command_names(typer.main.get_command(cli.app))
    for name, calls in CALLS.items():
        assert all(call.words.startswith(f"{name} ") or call.words == name for call in calls), name
        assert any(call.status for call in calls), f"{name} never fails"
    read = {secret for calls in CALLS.values() for call in calls for secret in (*call.uses, call.refuses) if secret}
    assert read == set(canary_world.USED)


def in_archive(text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", text)
    return gzip.compress(buffer.getvalue())


def in_parquet(text):
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"x": ["y", text]}), buffer, compression="zstd")
    return buffer.getvalue()


FORMS = {
    "plain": str.encode,
    "a third": lambda text: text[5:20].encode(),
    "lower case": lambda text: text.lower().encode(),
    "percent-encoded": lambda text: urllib.parse.quote(f"user:{text}@ü/").encode(),
    "percent-encoded wholly": lambda text: "".join(f"%{ord(letter):02X}" for letter in text).encode(),
    "escaped for JSON": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text).encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "hexadecimal": lambda text: text.encode().hex().encode(),
    "base64, 0": lambda text: base64.b64encode(f"abc{text}".encode()),
    "base64, 1": lambda text: base64.b64encode(f"user:xy{text}".encode()),
    "base64, 2": lambda text: base64.urlsafe_b64encode(f"user:{text}".encode()),
    "gzip": lambda text: gzip.compress(text.encode()),
    "ZIP in gzip": in_archive,
    "Parquet": in_parquet,
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_secret_is_found_in_every_form(form, tmp_path):
    search = canary_search.Search()
    (tmp_path / "file").write_bytes(b"before " * 9 + FORMS[form](canary_search.value(0x3F1A)) + b" after")
    if form in ("gzip", "ZIP in gzip", "Parquet"):
        (tmp_path / "file").write_bytes(FORMS[form](canary_search.value(0x3F1A)))
    assert search.below(tmp_path)[1]
    (tmp_path / "file").write_bytes(FORMS[form]("an ordinary text, as long as a secret"))
    assert search.below(tmp_path) == (1, [])


def test_a_secret_is_found_in_a_database_and_in_names(tmp_path):
    search = canary_search.Search("another shape")
    secret = canary_search.value(7)
    with sqlite3.connect(tmp_path / "x.db") as database:
        database.execute("create table t (x)")
        database.execute("insert into t values (?)", (gzip.compress(b"-"),))
        database.execute("insert into t values (?)", ("-" * 4050 + secret,))
    database.close()
    assert search.below(tmp_path)[1]
    (tmp_path / "x.db").unlink()
    for name, target in ((secret, "x"), ("x", secret)):
        (tmp_path / name).symlink_to(target)
        assert search.below(tmp_path)[1]
        (tmp_path / name).unlink()
    assert search.in_bytes(base64.b64encode(b"x another shape"))


# What a call needs first.


def data_in_bucket(world):
    bucket = world.gcs.bucket("models")
    for path in (world.work / "data").iterdir():
        bucket.blob(f"data/{path.name}").upload_from_filename(str(path))


def models_in_bucket(world):
    """Publishes two models, with the same scores; Vertex AI answers with these."""
    import marco_model
    from components import published_models

    model = world.work / "run" / "models" / "1"
    other = world.folder / "other"
    shutil.copytree(model, other)
    (other / "assets.extra" / "note").write_text("another model")
    for folder in (model, other):
        published_models.publish(folder, "gs://models/marco", {})
    classifier = marco_model.open_classifier(model)
    world.vertex.score = lambda content, uri: {"scores": [float(score) for score in classifier.score([content])[0]]}


def job_with_login(world):
    text = world.job().read_text()
    assert world.words["mlflow"] in text
    (world.inputs / "job.json").write_text(text.replace(world.words["mlflow"], world.words["mlflow_uri_url"]))


def job_without_model(world):
    model = Path(json.loads(world.job().read_text())["model_directory"])
    shutil.rmtree(model)


def run_with_login(world):
    text = (world.work / "run" / "summary.json").read_text()
    assert world.words["mlflow"] in text
    (world.inputs / "run").mkdir()
    changed = text.replace(world.words["mlflow"], world.words["mlflow_uri_url"])
    (world.inputs / "run" / "summary.json").write_text(changed)


def second_version(world):
    client = world.mlflow_client()
    (first,) = client.search_model_versions()
    model = first.source.removeprefix("models:/")
    client.create_model_version(first.name, first.source, first.run_id, tags=first.tags, model_id=model)


def filled_sheet(world):
    with (world.work / "look/raters/sheet-a.csv").open(encoding="utf-8-sig", newline="") as sheet:
        header, *rows = csv.reader(sheet)
    with (world.work / "sheet.csv").open("w", newline="") as filled:
        csv.writer(filled).writerows([header, *([*row[:2], "Clear", *row[3:]] for row in rows)])


def package_with_login(world):
    text = (world.work / "package.yaml").read_text()
    assert "http://mlflow:5000" in text
    login = f"http://user:{world.secrets['preset']}@mlflow:5000"
    (world.inputs / "login.yaml").write_text(text.replace("http://mlflow:5000", login))


def package_on_kubeflows_store(world):
    spec, platform = yaml.safe_load_all((world.work / "package.yaml").read_text())
    spec["defaultPipelineRoot"] = "minio://mlpipeline/private-artifacts/marco/runs"
    (world.inputs / "store.yaml").write_text(yaml.safe_dump_all([spec, platform]))


PREPARATIONS = {
    "data in a bucket": data_in_bucket,
    "models in a bucket": models_in_bucket,
    "job with a login": job_with_login,
    "job without its model": job_without_model,
    "run with a login": run_with_login,
    "second version": second_version,
    "filled sheet": filled_sheet,
    "package with a login": package_with_login,
    "package on Kubeflow's store": package_on_kubeflows_store,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with canary_world.world(tmp_path_factory.mktemp("canary")) as made:
        yield made


def serve(world, words, changes):
    """Starts the server, sends an image with a token in the query, and ends it as Kubernetes does."""
    process, path = world.start(words, changes)
    try:
        url = f"http://127.0.0.1:{words[-1]}/v1/models/marco"
        image = base64.b64encode(next((world.work / "images").rglob("*.jpg")).read_bytes()).decode()
        body = json.dumps({"instances": [{"b64": image}]}).encode()
        query = f"?access_token={world.secrets['client token']}&page=1"
        deadline = time.monotonic() + 300
        while "Uvicorn running" not in path.read_text():
            assert process.poll() is None and time.monotonic() < deadline, path.read_text()
            time.sleep(0.2)
        with urllib.request.urlopen(f"{url}:predict{query}", body, timeout=60) as answer:
            assert answer.status == 200
        (world.outputs / "metrics").write_bytes(urllib.request.urlopen(f"{url.partition('/v1')[0]}/metrics").read())
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    finally:
        process.kill()
        process.wait()
    if "predict?*** HTTP" in path.read_text():
        world.seen.add("client token")
    return status, path.read_text()


@pytest.fixture(scope="module")
def outcomes(world):
    """Makes all calls; returns the calls by command, each with status, output and the secrets that services got."""
    made = {}
    for name, calls in CALLS.items():
        made[name] = []
        for call in calls:
            world.words |= {
                "port": str(processes.free_port()),
                "job": str(world.job()),
                "image": str(world.image()),
            }
            world.seen.clear()
            words = shlex.split(call.words.format_map(world.words))
            changes = {key: value and value.format_map(world.words) for key, value in call.changes.items()}
            run = serve if name == "serve" and not call.status else type(world).run
            try:
                if call.before:
                    PREPARATIONS[call.before](world)
                status, output = run(world, words, changes)
            except Exception as error:  # So that the other calls are made.
                status, output = -1, repr(error)
            made[name].append((call, status, output, frozenset(world.seen)))
    return made


@pytest.mark.long
@pytest.mark.parametrize("name", list(CALLS))
def test_a_command_reads_its_secrets_and_shows_none(name, world, outcomes):
    search = canary_search.Search(*world.key_lines)
    problems = []
    for call, status, output, seen in outcomes[name]:
        says = call.says.format_map(world.words)
        if status != call.status or says not in output:
            problems.append(f"{call.words}: exit status {status}, not {call.status} and {says!r}: {output[-1500:]}")
        if missing := set(call.uses) - seen:
            problems.append(f"{call.words}: nothing was given {missing}: {output[-1500:]}")
        problems += [f"{call.words} shows {hit}" for hit in search.in_bytes(output.encode())]
        if status == 70 or "Traceback" in output:
            problems.append(f"{call.words}: a traceback: {output[-1500:]}")
    assert not problems, "\n\n".join(problems)


@pytest.mark.long
def test_no_file_that_was_written_holds_a_secret(world, outcomes):
    search = canary_search.Search(*world.key_lines)
    stored = {
        "bucket": world.gcs.objects("gs://models/"),
        "vertex": vars(world.vertex),
        "kubeflow": vars(world.kubeflow),
    }
    (world.folder / "stored").write_text(repr(stored))
    count, found = 0, []
    for folder in world.folder.iterdir():
        if folder.name not in ("inputs", "checkout"):
            more, hits = (
                search.below(folder, world.own_files) if folder.is_dir() else (1, search.in_bytes(folder.read_bytes()))
            )
            count, found = count + more, found + hits
    assert not found, "\n".join(found)
    assert count > 300
    written = {path.name for path in world.work.iterdir()}
    assert "none" not in written and {"run", "package.yaml", "package.json", "scores.csv", "plate.html"} <= written


@pytest.mark.long
def test_the_secrets_were_there(world, outcomes):
    assert world.inherited() == set(canary_world.INHERITED)
    for folder in (world.inputs, world.home):
        assert canary_search.Search().below(folder)[1]
    head = subprocess.run(
        ["git", "-C", world.checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    summary = json.loads((world.work / "run" / "summary.json").read_text())
    run = world.mlflow_client().get_run(summary["mlflow_run_id"])
    assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert world.secrets["git remote"] in (world.checkout / ".git" / "config").read_text()
    for name in (*canary_world.USED, *canary_world.PASSED_ON):
        assert world.secrets[name]
