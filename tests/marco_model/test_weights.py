import dataclasses
import json
import logging
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from marco_model import layers
from marco_model.classifier import export
from marco_model.errors import InputError
from marco_model.load import open_classifier
from marco_model.model_directory import METADATA, WEIGHTS
from marco_model.network import Network, build
from marco_model.preprocessing import evaluation_batch
from marco_model.weights import (
    Kept,
    check_initial,
    initial_fingerprint,
    initial_temperature,
    initialise,
)

pytestmark = pytest.mark.usefixtures("short_network")

SMALL = Network(input_size=151, depth_multiplier=0.1, auxiliary=False)
LOGITS, AUXILIARY_LOGITS = "Logits-Conv2d_1c_1x1", "AuxLogits-Conv2d_2b_1x1"


def shaken(network, classes, seed=0):
    """A network in which every variable, also biases and statistics, has a distinct value."""
    model = build(network, num_classes=len(classes), seed=seed)
    random = np.random.default_rng(seed)
    for variable in model.variables:
        low = 0.5 if "variance" in variable.path else -0.5
        variable.assign(random.uniform(low, 1, variable.shape))
    return model


def export_model(model, network, classes, folder):
    export(model, folder, classes=classes, input_size=network.input_size, metadata=network.facts())
    return str(folder)


def values(model):
    return {variable.path: np.array(variable) for variable in model.variables}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A model with three classes and an auxiliary head, as the second of two versions; its folder and its values."""
    network = dataclasses.replace(SMALL, auxiliary=True)
    models = tmp_path_factory.mktemp("models")
    model = shaken(network, "abc")
    export_model(model, network, ("Clear", "Crystals", "Skin"), models / "10")
    shutil.copytree(models / "10", models / "9")
    (models / "9" / WEIGHTS).unlink()
    return models, values(model)


def test_the_newest_version_of_an_earlier_model_is_copied_completely(earlier, caplog):
    models, before = earlier
    network = dataclasses.replace(SMALL, auxiliary=True, initial=str(models))
    model = build(network, num_classes=3, seed=5)
    with caplog.at_level(logging.INFO):
        kept = initialise(model, network, ["Clear", "Crystals", "Skin"])
    after = values(model)
    assert all(np.array_equal(after[path], before[path]) for path in before)
    assert kept == Kept(("Clear", "Crystals", "Skin"), (), True)
    assert len(caplog.messages) == 1
    assert "kept for Clear, Crystals, Skin; the auxiliary head is kept" in caplog.messages[0]


def test_the_temperature_of_an_earlier_model_is_read(earlier, tmp_path):
    models, _ = earlier
    shutil.copytree(models / "10", tmp_path / "3")
    path = tmp_path / "3" / METADATA
    path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": 0.7}))
    assert [initial_temperature(name) for name in ("random", "released", str(tmp_path))] == [1.0, 1.0, 0.7]


def test_with_other_classes_columns_are_kept_by_name(earlier, caplog):
    models, before = earlier
    network = dataclasses.replace(SMALL, auxiliary=True, initial=str(models))
    model = build(network, num_classes=4, seed=5)
    fresh = values(model)
    with caplog.at_level(logging.INFO):
        kept = initialise(model, network, ["crystals", "Needles", "Skin", "Plates"])
    after = values(model)
    assert kept == Kept(("crystals", "Skin"), ("Needles", "Plates"), True)
    for layer in (LOGITS, AUXILIARY_LOGITS):
        for path in (f"{layer}/kernel", f"{layer}/bias"):
            np.testing.assert_array_equal(after[path][..., [0, 2]], before[path][..., [1, 2]])
            np.testing.assert_array_equal(after[path][..., [1, 3]], fresh[path][..., [1, 3]])
    below = [path for path in before if not path.startswith((LOGITS, AUXILIARY_LOGITS))]
    assert all(np.array_equal(after[path], before[path]) for path in below)
    assert "at random for Needles, Plates; no longer classes: Clear" in caplog.messages[0]


def test_an_auxiliary_head_that_the_model_lacks_starts_at_random(tmp_path):
    folder = export_model(shaken(SMALL, "ab"), SMALL, ("Clear", "Crystals"), tmp_path / "m")
    network = dataclasses.replace(SMALL, auxiliary=True, initial=folder)
    model = build(network, num_classes=2, seed=5)
    before = values(model)
    assert initialise(model, network, ["Clear", "Crystals"]).auxiliary is False
    changed = {path for path, value in values(model).items() if not np.array_equal(value, before[path])}
    assert changed == {path for path in before if "AuxLogits" not in path}


def test_a_raw_head_starts_at_random_and_the_rest_is_kept(earlier):
    models, before = earlier
    network = dataclasses.replace(SMALL, auxiliary=True, initial=str(models))
    model = layers.with_raw_head(build(network, num_classes=3, seed=5), 4, seed=5)
    fresh = values(model)
    initialise(model, network, ["Clear", "Crystals", "Skin"])
    own = {path for path in fresh if path.startswith(layers.RAW_LAYER)}
    assert len(own) == 2 and set(fresh) - own == set(before)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, (fresh if path in own else before)[path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_multiplier": 0.3}, "has depth_multiplier 0.1 and network.depth_multiplier is 0.3"),
        ({"variant": "released"}, "has variant paper and network.variant is released"),
        ({"initial": "nowhere"}, "'nowhere', which holds no model; give random, released"),
        ({"initial": "gs//models"}, "holds no model"),
    ],
)
def test_a_model_that_does_not_fit_is_named(earlier, change, message):
    network = dataclasses.replace(SMALL, **{"initial": str(earlier[0]), **change})
    model = build(network, num_classes=2, seed=0)
    before = values(model)
    with pytest.raises(InputError, match=message):
        initialise(model, network, ["Clear", "Crystals"])
    assert all(np.array_equal(value, before[path]) for path, value in values(model).items())


def test_another_architecture_is_named(earlier):
    network = Network(architecture="nasnet_mobile", input_size=32, initial=str(earlier[0]))
    with pytest.raises(InputError, match=r"has architecture inception_v3 and network\.architecture is nasnet_mobile"):
        initialise(keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)]), network, ["a", "b"])


def test_missing_or_damaged_weights_are_reported(earlier, tmp_path):
    network = dataclasses.replace(SMALL, initial=str(earlier[0] / "9"))
    model = build(network, num_classes=2, seed=0)
    with pytest.raises(InputError, match=r"cannot read assets.extra/weights.npz.*exported with its weights"):
        initialise(model, network, ["a", "b"])
    shutil.copytree(earlier[0] / "10", tmp_path / "m")
    path = tmp_path / "m" / WEIGHTS
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 2)])
    with pytest.raises(InputError, match="is damaged"):
        initialise(model, dataclasses.replace(SMALL, initial=str(tmp_path / "m")), ["a", "b"])
    # Arrays of objects would run code when read.
    np.savez(path, **{"Conv2d_0a_3x3/kernel": np.array([print], dtype=object)})
    with pytest.raises(InputError, match="is damaged"):
        initialise(model, dataclasses.replace(SMALL, initial=str(tmp_path / "m")), ["a", "b"])


@pytest.mark.parametrize(
    "content",
    [*(b"", b"{", b"[]", b"3", b"{}", b'{"classes": 3}'), b'{"classes": [], "temperature": "hot"}'],
)
def test_metadata_that_are_not_those_of_a_model_are_reported(earlier, tmp_path, content):
    shutil.copytree(earlier[0] / "10", tmp_path / "m")
    (tmp_path / "m" / METADATA).write_bytes(content)
    initial = str(tmp_path / "m")
    for work in (
        lambda: initial_temperature(initial),
        lambda: check_initial(dataclasses.replace(SMALL, initial=initial)),
    ):
        with pytest.raises(InputError, match=r"the model in \S+/m is damaged \(.+\); copy or export it again"):
            work()


def test_what_training_can_begin_from_is_known_before_it_begins(earlier):
    initial = str(earlier[0])
    for network in (SMALL, Network(initial="released"), dataclasses.replace(SMALL, initial=initial)):
        check_initial(network)
    with pytest.raises(InputError, match=r"has depth_multiplier \S+ and network\.depth_multiplier is 0\.5; make them"):
        check_initial(dataclasses.replace(SMALL, depth_multiplier=0.5, initial=initial))


def test_the_fingerprint_depends_on_the_contents_and_not_on_the_place(earlier, tmp_path):
    version = earlier[0] / "10"
    assert initial_fingerprint(str(earlier[0])) == initial_fingerprint(str(version))
    remote = "ram://models/3"
    tf.io.gfile.makedirs(f"{remote}/assets.extra")
    for name in ("saved_model.pb", METADATA, WEIGHTS):
        tf.io.gfile.copy(str(version / name), f"{remote}/{name}", overwrite=True)
    assert initial_fingerprint("ram://models/") == initial_fingerprint(str(version))
    metadata = json.loads((version / METADATA).read_text())
    with tf.io.gfile.GFile(f"{remote}/{METADATA}", "w") as file:
        json.dump({**metadata, "classes": ["Crystals", "Clear", "Skin"]}, file)
    assert len({initial_fingerprint(name) for name in ("random", "released", str(version), "ram://models")}) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("short_applications")
@pytest.mark.parametrize(
    ("name", "size"), [("inception_resnet_v2", 75), pytest.param("nasnet_mobile", 32, marks=pytest.mark.long)]
)
def test_an_exported_application_scores_the_same_and_can_start_a_training(name, size, tmp_path, encoded):
    network = Network(architecture=name, input_size=size)
    model = build(network, num_classes=2, seed=0)
    random = np.random.default_rng(0)
    for variable in model.variables:
        if not variable.path.endswith("kernel"):
            variable.assign(np.array(variable) + random.uniform(0, 0.2, variable.shape))
    folder = export_model(model, network, ("Clear", "Crystals"), tmp_path / "m")
    expected = tf.nn.softmax(model(evaluation_batch(tf.constant(encoded), size), training=False)).numpy()
    np.testing.assert_allclose(open_classifier(folder).score(encoded), expected, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 1e-4
    before = values(model)
    for variable in model.variables:
        variable.assign(tf.fill(variable.shape, 2.0))
    initialise(model, dataclasses.replace(network, initial=folder), ["Clear", "Crystals"])
    assert all(np.array_equal(value, before[path]) for path, value in values(model).items())
