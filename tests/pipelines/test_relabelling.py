"""The whole loop on drops with 5 % wrong labels: they are found, corrected and trained on, and the model improves."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from marco_data import contract
from marco_data.relabelling.scoring import labelled_records
from marco_data.shards import find_shards
from marco_data.synthetic import Settings, synthesize
from marco_model.labels import CLASSES
from pipelines.cli import app

pytestmark = pytest.mark.slow

IMAGES, SIZE = 400, 299
# With this seed, 19 images have wrong labels, at most 5 % of each split, so that all of them can be exported.
SETTINGS = Settings(seed=41, eval_share=0.3, shorter_side=240, label_noise=0.05)


def marco(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture
def body(tmp_path):
    """The published network, and a function from labelled images to its features, each image's computed once."""
    from marco_model.classifier import export
    from marco_model.inception_v3 import inception_v3
    from marco_model.load import open_classifier
    from marco_model.model_directory import published_directory, saved_model_directory
    from marco_model.weights import load_published_weights

    network = inception_v3(variant="released", input_size=SIZE)
    load_published_weights(network, saved_model_directory(published_directory()))
    export(network, tmp_path / "body", classes=CLASSES, input_size=SIZE, metadata={"name": "body"})
    classifier = open_classifier(tmp_path / "body")
    known = {}

    def features(images):
        new = [image for image in images if image.encoded not in known]
        if new:
            known.update(zip((image.encoded for image in new), embed(classifier, new), strict=True))
        return np.stack([known[image.encoded] for image in images])

    return network, features


def fit(body, examples, directory):
    """Exports the published network with a new last layer that memorizes the labels of the training split.

    With little regularization it learns wrong labels too, like a network that is trained for long.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from marco_model.classifier import export
    from marco_model.load import open_classifier

    network, features_of = body
    train = list(records(find_shards([str(examples / "Split-train")])))
    features = features_of(train)
    scaler = StandardScaler().fit(features)
    head = LogisticRegression(C=1.0, max_iter=2000).fit(
        scaler.transform(features), [CLASSES.index(r.label) for r in train]
    )
    kernel = head.coef_ / scaler.scale_
    layer = network.get_layer("Logits-Conv2d_1c_1x1")
    layer.set_weights([kernel.T[None, None], head.intercept_ - kernel @ scaler.mean_])
    export(network, directory / "model", classes=CLASSES, input_size=SIZE, metadata={"name": directory.name})
    return open_classifier(directory / "model")


def records(shards):
    def refuse(*problem):
        raise AssertionError(problem)

    return labelled_records(shards, refuse)


def batches_of(records):
    return [records[start : start + 16] for start in range(0, len(records), 16)]


def embed(classifier, records):
    return np.concatenate([classifier.embed([record.encoded for record in batch]) for batch in batches_of(records)])


def answer(sheet, truth, skipped=()):
    """Fills in a sheet as an expert who is always right would, except for the images `skipped`."""
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            assert not row["label"]
            if int(row["image_id"]) not in skipped:
                row |= {"label": truth[int(row["image_id"])], "date": "2026-01-15"}
            writer.writerow(row)


def accuracy(classifier, records, truth):
    scores = [classifier.score([record.encoded for record in batch]) for batch in batches_of(records)]
    predicted = np.concatenate(scores).argmax(1)
    return np.mean([CLASSES[index] == truth[record.image_id] for index, record in zip(predicted, records, strict=True)])


@pytest.mark.long
def test_wrong_labels_are_found_and_corrected_and_the_model_improves(body, tmp_path):
    manifest = synthesize(tmp_path / "drops", IMAGES, SETTINGS)
    filed = {record.image_id: record for record in records(find_shards([str(tmp_path / "drops")]))}
    flipped = {int(number): shown for number, (shown, _) in manifest["label_noise"].items()}
    truth = {number: record.label for number, record in filed.items()} | flipped
    marco("data", "ingest", "--output", tmp_path / "first", tmp_path / "drops")
    before = fit(body, tmp_path / "first" / "examples", tmp_path / "before")

    look, overlay = tmp_path / "look", tmp_path / "overlay.csv"
    export = (
        "relabel",
        "export",
        "--model",
        tmp_path / "before" / "model",
        "--data",
        tmp_path / "drops",
        "--output",
        look,
    )
    marco(*export, "--folds", 5, "--raters", "anna,ben")
    with (look / "key.csv").open(newline="") as file:
        exported = {int(row["image_id"]): row for row in csv.DictReader(file)}
    for split in ("train", "eval"):
        of_split = sum(record.split == split for record in filed.values())
        assert sum(row["split"] == split for row in exported.values()) == pytest.approx(0.05 * of_split, abs=1)
    found = exported.keys() & flipped.keys()
    assert len(found) >= 0.8 * len(flipped)

    answer(look / "raters" / "sheet-anna.csv", truth)
    answer(look / "raters" / "sheet-ben.csv", truth, skipped=sorted(exported)[:3])
    output = marco("relabel", "merge", *(look / "raters").glob("*.csv"), "--key", look / "key.csv", "--output", overlay)
    assert f"all: {len(found)} of {len(exported)} changed" in output and "3 answers are empty" in output
    marco("data", "ingest", "--output", tmp_path / "second", "--overlay", overlay, tmp_path / "drops")

    summary = json.loads((tmp_path / "second" / "summary.json").read_text())
    assert summary["relabelled"]["total"] == len(found) and not summary["overlay_unused"]
    written = [
        tf.train.Example.FromString(data)
        for path in (tmp_path / "second" / "examples").glob("Split-*/*")
        for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    changed = set()
    for example in written:
        feature = {
            name: values.bytes_list.value[0].decode()
            for name, values in example.features.feature.items()
            if values.bytes_list.value and name != contract.ENCODED
        }
        number = example.features.feature[contract.IMAGE_ID].int64_list.value[0]
        if feature[contract.LABEL_TEXT] != filed[number].label:
            changed.add(number)
            assert feature[contract.GIVEN_TEXT] == filed[number].label
            assert feature[contract.LABEL_TEXT] == feature[contract.OVERLAY_LABEL] == truth[number]
            assert feature[contract.OVERLAY_RATER] in ("anna+ben", "ben+anna", "anna")
            assert feature[contract.OVERLAY_DATE] == "2026-01-15"
    assert changed == found

    after = fit(body, tmp_path / "second" / "examples", tmp_path / "after")
    evaluated = [record for record in filed.values() if record.split == "eval"]
    assert accuracy(after, evaluated, truth) > accuracy(before, evaluated, truth)
