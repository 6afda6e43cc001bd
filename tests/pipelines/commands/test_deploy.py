"""`marco deploy` as a user gives it, against stand-ins for Vertex AI and Cloud Storage, with a real SavedModel."""

import functools
import importlib.util
import pathlib
import sys

import numpy as np
import pytest
import typer.testing

from components.pusher import storage
from components.vertex import api
from marco_model.errors import InputError
from pipelines import cli

pytestmark = pytest.mark.slow
CLASSES = ("Clear", "Crystals", "Other", "Precipitate")


def stand_in():
    path = pathlib.Path(__file__).parents[2] / "components/vertex/vertex_api.py"
    spec = importlib.util.spec_from_file_location("vertex_api", path)
    module = sys.modules["vertex_api"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.running()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small models: scores are a softmax over the mean colour."""
    import tensorflow as tf

    class Model(tf.Module):
        def __init__(self, factor):
            super().__init__()
            self.weights = tf.Variable(factor * np.array([[0, 8, 0, -4], [0, 0, 8, -4], [-8, 0, 0, 8]], np.float32))
            self.names = tf.constant(CLASSES)

        def of_one(self, encoded):
            image = tf.cast(tf.io.decode_image(encoded, 3, expand_animations=False), tf.float32) / 255.0
            return tf.nn.softmax(tf.linalg.matvec(self.weights, tf.reduce_mean(image, [0, 1]), transpose_a=True))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def images(self, image_bytes):
            scores = tf.map_fn(self.of_one, image_bytes, fn_output_signature=tf.TensorSpec([4], tf.float32))
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
    """The stand-in, with both models published, each served as it is."""
    from marco_model.load import load

    monkeypatch.setattr(
        api.Api.__init__, "__defaults__", (api.Pace(tries=4, first=1e-4, longest=1e-4, look=0), api.show)
    )
    gcs.bucket("models")
    published = {storage.publish(folder, "gs://models/marco", {}).path: load(folder) for folder in models}
    with stand_in() as service:

        @functools.cache
        def score(content, uri):
            return {"scores": [float(one) for one in published[uri].score([content])[0]]}

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


def test_what_cannot_be_done_is_said(vertex):
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


def test_a_preset_says_where_and_how(vertex, tmp_path):
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


@pytest.mark.parametrize("command", ["push", "status", "promote", "rollback"])
def test_help_teaches(command):
    result = typer.testing.CliRunner().invoke(cli.app, ["deploy", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: marco deploy {command}" in result.output
