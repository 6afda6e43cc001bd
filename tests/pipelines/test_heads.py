"""The whole pipeline with a head of raw labels and a source whose labels are hidden, from shards to a served model."""

import json
import pathlib

import pytest
import tensorflow as tf
from mlflow import MlflowClient

from tests import stores
from tests.pipelines.test_label_schemes import TINY

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.usefixtures("short_network")]

# The Materializer shrinks the images, and must keep institution and raw label.
RECIPE = {**TINY["recipe"], "adversarial_weight": 0.5, "raw_weight": 0.3, "unlabelled": ["CSIRO"]}


def test_the_published_model_has_raw_scores_under_the_names_of_the_set(tmp_path):
    from components.settings import parse
    from marco_data.synthetic import KINDS, Settings, synthesize
    from pipelines import configuration, local_runner, pipeline, places

    synthesize(tmp_path / "set", 96, Settings(eval_share=0.4, shorter_side=160))
    values = {
        "name": "tried",
        **TINY,
        "recipe": RECIPE,
        "thresholds": {"accuracy": 0.0},
        "gate": {"evidence": False},
        "data": {"source": str(tmp_path / "set")},
        "tracking": {"uri": stores.local_store(tmp_path)},
    }
    loaded = parse(configuration.Configuration, values, "test")
    output = tmp_path / "output"
    graph = pipeline.create_local_pipeline(loaded, places.local_data(loaded, output), output)
    summary = local_runner.run(graph, output)
    folder = pathlib.Path(summary["model_path"])
    saved = tf.saved_model.load(str(folder))
    image = tf.io.encode_jpeg(tf.zeros([160, 200, 3], tf.uint8))
    raw = saved.signatures["serving_raw"](image_bytes=image[None])
    names = [name.decode() for name in raw["classes"][0].numpy()]
    assert len(names) > 4 and set(names) <= {kind.name for kind in KINDS}
    assert raw["scores"].shape == (1, len(names))
    assert saved.signatures["serving_default"](image_bytes=image[None])["scores"].shape == (1, 4)
    (job,) = output.glob("checkpoints/*/job.json")
    targets = json.loads(job.read_text())["targets"]
    assert targets["unlabelled"] == ["CSIRO"] and set(targets["sources"]) > {"CSIRO", "Merck"}
    parameters = MlflowClient(loaded.tracking.uri).get_run(summary["mlflow_run_id"]).data.params
    assert parameters["recipe.adversarial_weight"] == "0.5" and parameters["recipe.raw_weight"] == "0.3"
