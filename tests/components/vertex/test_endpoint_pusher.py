"""The component's executor, from a published SavedModel in a bucket to an endpoint that serves it."""

import json
import pathlib
import shutil
from unittest import mock

import pytest

from components import published_models
from components.published_models import RECORD_FILE
from components.vertex import api, golden, rollout
from components.vertex.golden import GoldenFailed, Image
from components.vertex.options import Endpoint, Vertex
from marco_model import store
from marco_model.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def published(gcs, colour_model):
    """Publishes the colour model to a bucket and returns its URI."""
    gcs.bucket("models")
    note = {"model": "x", "mlflow_run_id": "0123abcd"}
    return published_models.publish(colour_model / "Format-Serving", "gs://models/marco", note).path


@pytest.fixture
def serving(world, colour_model):
    """The stand-in answers as TensorFlow Serving would with the same SavedModel."""
    from marco_model.load import open_classifier

    classifier = open_classifier(colour_model / "Format-Serving")

    def score(content, uri):
        scores = classifier.score([content])[0]
        return {"scores": [float(score) for score in scores], "classes": list(classifier.classes)}

    world.service.score = score
    return world


def run(world, tmp_path, uri, write_examples, record, **endpoint):
    """Runs the executor as TFX would and returns the content of its deployment.json."""
    from tfx.types import standard_artifacts

    from components.artifacts import Deployment
    from components.steps.pusher import EndpointPusher

    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 90)]
    examples = tmp_path / "examples"
    shutil.rmtree(examples, ignore_errors=True)
    records = [record(number, number % 4, colour=colours[number % 4]) for number in range(12)]
    pushed, deployment = standard_artifacts.PushedModel(), Deployment()
    pushed.uri, deployment.uri = str(tmp_path / "pushed"), str(tmp_path / "deployment")
    (tmp_path / "pushed").mkdir(exist_ok=True)
    (tmp_path / "pushed" / RECORD_FILE).write_text(json.dumps({"pushed": uri is not None, "path": uri}))
    properties = {
        "vertex": world.api.place.model_dump_json(),
        "endpoint": Endpoint(name="marco", **endpoint).model_dump_json(),
        "model_name": "marco",
    }
    inputs = {"pushed_model": [pushed], "examples": [write_examples(examples, {"eval": records})]}
    with mock.patch.object(api, "PACE", world.api.pace):
        EndpointPusher.EXECUTOR_SPEC.executor_class().Do(inputs, {"deployment": [deployment]}, properties)
    assert deployment.get_int_custom_property("deployed") == int(uri is not None)
    return json.loads(pathlib.Path(deployment.uri, "deployment.json").read_text())


def test_a_published_model_is_deployed_and_checked_by_the_evaluation_split(
    serving, tmp_path, published, write_examples, record
):
    deployment = run(serving, tmp_path, published, write_examples, record)
    assert deployment["deployed"] and deployment["version"] == "1" and deployment["traffic"] == {"1": 100}
    assert deployment["uri"] == published == "gs://models/marco/1"
    (version,) = serving.service.models["marco"]
    assert version.labels["marco-run"] == "0123abcd"
    predicts = sum(":predict" in request for request in serving.service.requests)
    assert predicts == 2 * 8  # Eight images, on the check endpoint and on the real one.
    changes = [request for request in serving.service.requests if not request.startswith("GET")]
    assert run(serving, tmp_path, published, write_examples, record) == deployment
    assert [request for request in serving.service.requests if not request.startswith("GET")] == changes


def test_nothing_is_deployed_that_was_not_published(world, tmp_path, write_examples, record):
    assert run(world, tmp_path, None, write_examples, record) == {"deployed": False}
    assert world.service.requests == []


def test_scores_that_are_slightly_off_are_refused(serving, tmp_path, published, write_examples, record):
    right = serving.service.score

    def score(content, uri):
        answer = right(content, uri)
        answer["scores"][0] += 0.002
        return answer

    serving.service.score = score
    with pytest.raises(GoldenFailed, match=r"a score is off by 0.002, more than 0.001"):
        run(serving, tmp_path, published, write_examples, record)
    assert serving.traffic() == {}
    run(serving, tmp_path, published, write_examples, record, tolerance=0.01)
    assert serving.traffic() == {"1": 100}


def test_golden_images_of_a_bucket_are_checked_by_their_folders_names(serving, published, jpeg, gcs, tmp_path):
    gcs.bucket("golden")
    for name, colour in {"Crystals/red.jpg": (200, 30, 30), "other/green.jpg": (30, 200, 30)}.items():
        path = tmp_path / pathlib.Path(name).name
        path.write_bytes(jpeg(colour))
        store.upload(path, f"gs://golden/images/{name}")
    images = golden.in_place("gs://golden/images")
    assert [(image.name, image.shows) for image in images] == [
        ("Crystals/red.jpg", "Crystals"),
        ("other/green.jpg", "other"),
    ]
    _, answers = rollout.fetch(published, lambda: images)
    assert [image.label for image in answers] == ["Crystals", "Other"]
    with pytest.raises(InputError, match="red shows Clear and the model says Crystals"):
        wrong = [Image("red", images[0].content, "Clear")]
        rollout.push_model(serving.api, Endpoint(name="marco"), "marco", published, lambda: wrong)
    assert not serving.service.requests


def test_a_model_on_this_machine_is_refused(world, colour_model):
    with pytest.raises(InputError, match="is not on gs://, where Vertex AI takes models from"):
        rollout.push_model(world.api, Endpoint(name="marco"), "marco", str(colour_model), list)


def test_images_too_large_for_a_request_are_refused(tmp_path):
    import numpy as np
    from PIL import Image as Pillow

    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.raises(InputError, match=r"noise\.png .* shrink it"):
        golden.in_place(str(tmp_path))


def test_golden_images_are_read_as_a_prediction_reads_them(tmp_path, jpeg):
    for name in ("set/.snapshot/red.jpg", "store/Crystals/red.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(jpeg((200, 30, 30)))
    (tmp_path / "set" / "Crystals").symlink_to("../store/Crystals")
    assert [(image.name, image.shows) for image in golden.in_place(str(tmp_path / "set"))] == [
        ("Crystals/red.jpg", "Crystals")
    ]
    (tmp_path / "set" / "gone.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InputError, match=r"golden image gone.jpg of .* cannot be read: .* it links to nowhere.jpg"):
        golden.in_place(str(tmp_path / "set"))


def test_drawn_images_have_all_classes_and_are_reproducible():
    first, second = golden.draw(4), golden.draw(4)
    assert first == second
    assert [image.name.split()[1] for image in first] == ["clear", "crystals", "other", "precipitate"]


def test_location_and_traffic_are_checked():
    with pytest.raises(ValueError, match=r"vertex\.location 'europe' is not a region"):
        Vertex(project="crystals", location="europe")
    with pytest.raises(ValueError, match=r"endpoint\.traffic is \[50, 10\]"):
        Endpoint(name="marco", traffic=(50, 10))
