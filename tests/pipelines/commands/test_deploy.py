"""`marco deploy` as a user runs it, against stand-ins for Vertex AI and Cloud Storage, with a real SavedModel."""

import functools

import numpy as np
import pytest
import typer.testing

from components import published_models
from components.vertex import api
from marco_model.errors import InputError
from pipelines import cli

pytestmark = pytest.mark.slow
CLASSES = ("Clear", "Crystals", "Other", "Precipitate")


def stand_in():
    from tests.fakes import vertex_api

    return vertex_api.running()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small models: scores are a softmax over the mean colour."""
    import tensorflow as tf

    class Model(tf.Module):
        def __init__(self, factor):
            super().__init__()
            self.weights = tf.Variable(factor * np.array([[0, 8, 0, -4], [0, 0, 8, -4], [-8, 0, 0, 8]], np.float32))
            self.names = tf.constant(CLASSES)

        def score(self, encoded):
            image = tf.cast(tf.io.decode_image(encoded, 3, expand_animations=False), tf.float32) / 255.0
            return tf.nn.softmax(tf.linalg.matvec(self.weights, tf.reduce_mean(image, [0, 1]), transpose_a=True))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def images(self, image_bytes):
            scores = tf.map_fn(self.score, image_bytes, fn_output_signature=tf.TensorSpec([4], tf.float32))
            return {"scores": scores, "classes": tf.tile(self.names[None], [tf.shape(scores)[0], 1])}

    folders = []
    for factor in (1.0, 0.5):
        folder = tmp_path_factory.mktemp("model")
        model = Model(factor)
        tf.saved_model.save(model, str(folder), signatures={"serving_default": model.images})
        folders.append(folder)
    return folders


@pytest.fixture
def vertex(models, gcs, monkeypatch):
    """The stand-in, with both models published; each scores with its own weights."""
    from marco_model.load import open_classifier

    monkeypatch.setattr(
        api.Api.__init__, "__defaults__", (api.Pace(tries=4, first=1e-4, longest=1e-4, look=0), api.show)
    )
    gcs.bucket("models")
    published = {
        published_models.publish(folder, "gs://models/marco", {}).path: open_classifier(folder) for folder in models
    }
    with stand_in() as service:

        @functools.cache
        def score(content, uri):
            return {"scores": [float(score) for score in published[uri].score([content])[0]]}

        service.score = score
        yield service


def marco(service, *arguments):
    options = ["--project", "crystals", "--location", "europe-west4", "--endpoint", "drops", "--api", service.url]
    options += ["--set", "endpoint.golden_images=2"]
    result = typer.testing.CliRunner().invoke(cli.app, ["deploy", *arguments, *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def row(output, version):
    found = [line for line in output.splitlines() if line.startswith("│") and line.split()[1] == version]
    return [cell.strip() for cell in found[0].strip("│").split("│")]


def test_from_a_first_model_to_a_canary_and_back(vertex):
    marco(vertex, "push", "--model", "gs://models/marco/1")
    output = marco(vertex, "push", "--model", "gs://models/marco", "--traffic", "10")
    assert row(output, "1")[:3] == ["1", "90 %", "serves"]
    assert row(output, "2")[:3] == ["2", "10 %", "on trial"]
    assert row(output, "2")[5] == "gs://models/marco/2"
    assert row(marco(vertex, "status"), "2") == row(output, "2")
    assert "version 2 taken back, 1 serves" in marco(vertex, "rollback")
    marco(vertex, "push", "--model", "gs://models/marco/2", "--traffic", "10")
    output = marco(vertex, "promote", "--set", "endpoint.keep_previous=true")
    assert [row(output, version)[1:3] for version in ("2", "1")] == [["100 %", "serves"], ["0 %", "the way back"]]
    assert "version 2 taken back, 1 serves" in marco(vertex, "rollback")
    assert row(marco(vertex, "status"), "1")[1:3] == ["100 %", "serves"]
    assert "promote" not in marco(vertex, "promote")
    command = ["push", "--model", "gs://models/marco/1", "--set", "endpoint.machine_type=n1-standard-8"]
    assert row(marco(vertex, *command), "1")[7] == "n1-standard-8"


def test_impossible_requests_are_refused_with_a_reason(vertex):
    with pytest.raises(InputError, match="there is no endpoint 'drops' in crystals"):
        marco(vertex, "status")
    with pytest.raises(InputError, match="no version on trial"):
        marco(vertex, "promote")
    with pytest.raises(InputError, match="no model at gs://models/none"):
        marco(vertex, "push", "--model", "gs://models/none")
    with pytest.raises(InputError, match=r"unknown key 'endpoint\.colour'"):
        marco(vertex, "status", "--set", "endpoint.colour=blue")
    with pytest.raises(InputError, match=r"vertex\.location"):
        marco(vertex, "status", "--set", "vertex.location=europe")


def test_a_preset_names_project_endpoint_and_machine(vertex, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"""name: mine
thresholds: {{accuracy: 0.5}}
model_name: drops
vertex: {{project: crystals, location: europe-west4, api: "{vertex.url}"}}
endpoint: {{name: plates, machine_type: n1-standard-8, accelerator: NVIDIA_TESLA_T4, accelerators: 1}}
"""
    )
    arguments = ["deploy", "push", "--model", "gs://models/marco/1", "--preset", str(tmp_path / "mine.yaml")]
    result = typer.testing.CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    (deployed,) = vertex.endpoints["plates"].deployed_models
    machine = deployed.dedicated_resources.machine_spec
    assert (machine.machine_type, machine.accelerator_type.name, machine.accelerator_count) == (
        "n1-standard-8",
        "NVIDIA_TESLA_T4",
        1,
    )
    assert list(vertex.models) == ["drops"]


@pytest.mark.parametrize("command", ["push", "status", "promote", "rollback", "batch"])
def test_help_teaches(command):
    result = typer.testing.CliRunner().invoke(cli.app, ["deploy", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: marco deploy {command}" in result.output


def job_end(classifier, folder):
    """Returns an update that ends a job as Vertex AI would: one line per key, except for one image it could not read.

    Another image gets an error instead of scores, as `marco serve` answers.
    """
    import base64
    import json

    from google.cloud.aiplatform_v1.types import BatchPredictionJob

    from marco_model import store

    def end(job):
        assert job.input_config.instances_format == "jsonl" and job.instance_config.key_field == "key"
        lines = []
        for uri in job.input_config.gcs_source.uris:
            for line in store.open_raw(uri).read().decode().splitlines():
                instance = json.loads(line)
                scores = classifier.score([base64.b64decode(instance["image_bytes"]["b64"])])[0]
                prediction = {"scores": [float(score) for score in scores], "classes": list(CLASSES)}
                lines.append(json.dumps({"key": instance["key"], "prediction": prediction}))
        lines = sorted(lines)[:-1]
        lines[0] = json.dumps({"key": json.loads(lines[0])["key"], "prediction": {"error": "does not decode"}})
        (folder / "lines").write_text("\n".join(lines) + "\n")
        folder_uri = f"{job.output_config.gcs_destination.output_uri_prefix}/prediction-marco-2026"
        store.upload(folder / "lines", f"{folder_uri}/prediction.results-00000-of-00001")
        store.upload(folder / "lines", f"{folder_uri}/prediction.errors_stats-00000-of-00001")
        job.output_info = BatchPredictionJob.OutputInfo(gcs_output_directory=folder_uri)
        job.state = "JOB_STATE_SUCCEEDED"

    return end


def test_images_of_a_bucket_are_scored_by_a_batch_prediction(vertex, models, gcs, real_images, tmp_path):
    import csv

    from marco_model import store
    from marco_model.load import open_classifier

    marco(vertex, "push", "--model", "gs://models/marco/1")
    gcs.bucket("plates")
    for name, path in real_images.items():
        store.upload(path, f"gs://plates/first/{name}")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    store.upload(tmp_path / "broken.jpg", "gs://plates/first/broken.jpg")
    classifier = open_classifier(models[0])
    vertex.states = [lambda job: setattr(job, "state", "JOB_STATE_RUNNING"), job_end(classifier, tmp_path)]
    scores = tmp_path / "scores.csv"
    options = ["--project", "crystals", "--location", "europe-west4", "--api", vertex.url, "--scores", str(scores)]
    command = ["deploy", "batch", "--input", "gs://plates/first", "--output", "gs://plates/scores", *options]
    result = typer.testing.CliRunner().invoke(cli.app, command)
    assert result.exit_code == 1, (result.output, result.exception)  # Three have no scores.
    rows = list(csv.DictReader(scores.open()))
    assert len(rows) == len(real_images) - 2
    for row in rows:
        right = classifier.score([real_images[row["path"].rsplit("/", 1)[1]].read_bytes()])[0]
        assert [float(row[name.lower()]) for name in CLASSES] == pytest.approx(right, abs=1e-6)
        assert row["class"] == CLASSES[int(right.argmax())] and row["model"] == "marco-1"
    errors = (tmp_path / "scores.errors.csv").read_text()
    assert {row["path"].rsplit("/", 1)[1]: row["reason"] for row in csv.DictReader(errors.splitlines())} == {
        "broken.jpg": "not a JPEG, PNG, TIFF or BMP image",
        sorted(real_images)[0]: "does not decode",
        sorted(real_images)[-1]: "Vertex AI gave no prediction",
    }

    def copied():
        return {item.uri: item.generation for item in store.list_objects("gs://plates/scores") if "/input/" in item.uri}

    before, vertex.states = copied(), []
    assert typer.testing.CliRunner().invoke(cli.app, command).exit_code == 1
    assert len(vertex.jobs["batchPredictionJobs"]) == 1
    assert (tmp_path / "scores.errors.csv").read_text() == errors
    assert copied() == before

    for blob in gcs.client().list_blobs("plates", prefix="scores"):
        if "/output/" in blob.name:
            blob.delete()
    vertex.states = [job_end(classifier, tmp_path)]
    assert typer.testing.CliRunner().invoke(cli.app, command).exit_code == 1
    assert len(vertex.jobs["batchPredictionJobs"]) == 2
    assert (tmp_path / "scores.errors.csv").read_text() == errors


def test_without_a_readable_image_no_batch_prediction_is_started(vertex, gcs, tmp_path):
    from marco_model import store

    marco(vertex, "push", "--model", "gs://models/marco/1")
    gcs.bucket("plates")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    store.upload(tmp_path / "broken.jpg", "gs://plates/first/broken.jpg")
    options = ["--project", "crystals", "--location", "europe-west4", "--api", vertex.url]
    options += ["--scores", str(tmp_path / "scores.csv")]
    command = ["deploy", "batch", "--input", "gs://plates/first", "--output", "gs://plates/scores", *options]
    result = typer.testing.CliRunner().invoke(cli.app, command)
    assert result.exit_code == 1, (result.output, result.exception)
    assert vertex.jobs["batchPredictionJobs"] == {}
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "path,plate,well,drop,class,model,inspection,date,flag"
    ]
    assert (tmp_path / "scores.errors.csv").read_text().splitlines()[1:] == [
        'gs://plates/first/broken.jpg,"not a JPEG, PNG, TIFF or BMP image"'
    ]


def test_a_failed_batch_prediction_is_reported(vertex, gcs, real_images, tmp_path):
    from google.rpc.status_pb2 import Status

    from marco_model import store
    from marco_model.errors import ClusterError

    gcs.bucket("plates")
    store.upload(real_images["crystals_10.jpeg"], "gs://plates/a/b.jpeg")
    command = ["deploy", "batch", "--input", "gs://plates/a", "--output", "gs://plates/scores", "--api", vertex.url]
    command += ["--project", "crystals", "--location", "europe-west4", "--scores", str(tmp_path / "scores.csv")]
    result = typer.testing.CliRunner().invoke(cli.app, command)
    assert isinstance(result.exception, InputError) and "the registry has none" in str(result.exception)
    marco(vertex, "push", "--model", "gs://models/marco/1")

    def fail(job):
        job.state, job.error = "JOB_STATE_FAILED", Status(code=8, message="no quota")

    vertex.states = [fail]
    result = typer.testing.CliRunner().invoke(cli.app, command)
    assert isinstance(result.exception, ClusterError) and "failed (no quota)" in str(result.exception)
    assert not (tmp_path / "scores.csv").exists()
