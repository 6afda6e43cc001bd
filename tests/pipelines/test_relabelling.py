"""The whole loop on drops of which 5 % are filed under a wrong class: found, labelled anew, trained on, better."""

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
# Of this seed, 19 images are filed wrongly, in each split at most 5 % of it, so that all could be among the exported.
SETTINGS = Settings(seed=41, eval_share=0.3, shorter_side=240, label_noise=0.05)


def marco(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def fitted(examples, directory):
    """Exports the published network with a last layer that learns the labels of the training split, and by heart.

    Little regularization: what it is told wrongly it believes, as a network does that is trained for long.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from marco_model.classifier import export
    from marco_model.inception_v3 import inception_v3
    from marco_model.load import load
    from marco_model.model_directory import published_directory, saved_model_directory
    from marco_model.weights import load_published_weights

    network = inception_v3(variant="released", input_size=SIZE)
    load_published_weights(network, saved_model_directory(published_directory()))
    export(network, directory / "body", classes=CLASSES, input_size=SIZE, metadata={"name": "body"})
    train = list(records(find_shards([str(examples / "Split-train")])))
    features = embedded(load(directory / "body"), train)
    scaler = StandardScaler().fit(features)
    head = LogisticRegression(C=1.0, max_iter=2000).fit(
        scaler.transform(features), [CLASSES.index(r.label) for r in train]
    )
    kernel = head.coef_ / scaler.scale_
    layer = network.get_layer("Logits-Conv2d_1c_1x1")
    layer.set_weights([kernel.T[None, None], head.intercept_ - kernel @ scaler.mean_])
    export(network, directory / "model", classes=CLASSES, input_size=SIZE, metadata={"name": directory.name})
    return load(directory / "model")


def records(shards):
    def refuse(*problem):
        raise AssertionError(problem)

    return labelled_records(shards, refuse)


def embedded(classifier, found):
    batches = [found[start : start + 16] for start in range(0, len(found), 16)]
    return np.concatenate([classifier.embed([one.encoded for one in batch]) for batch in batches])


def answer(sheet, truth, skipped=()):
    """Fills in a sheet as an expert does who is always right, but leaves the images `skipped` out."""
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            assert not row["label"]
            if int(row["image_id"]) not in skipped:
                row |= {"label": truth[int(row["image_id"])], "date": "2026-01-15"}
            writer.writerow(row)


def accuracy(classifier, found, truth):
    scores = np.concatenate(
        [classifier.score([one.encoded for one in found[n : n + 16]]) for n in range(0, len(found), 16)]
    )
    return np.mean([CLASSES[index] == truth[one.image_id] for index, one in zip(scores.argmax(1), found, strict=True)])


def test_wrong_labels_are_found_and_mended_and_the_model_gets_better(tmp_path):
    manifest = synthesize(tmp_path / "drops", IMAGES, SETTINGS)
    filed = {one.image_id: one for one in records(find_shards([str(tmp_path / "drops")]))}
    flipped = {int(number): shown for number, (shown, _) in manifest["label_noise"].items()}
    truth = {number: one.label for number, one in filed.items()} | flipped
    marco("data", "ingest", "--output", tmp_path / "first", tmp_path / "drops")
    before = fitted(tmp_path / "first" / "examples", tmp_path / "before")

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
        of_split = sum(one.split == split for one in filed.values())
        assert sum(row["split"] == split for row in exported.values()) == pytest.approx(0.05 * of_split, abs=1)
    found = exported.keys() & flipped.keys()
    assert len(found) >= 0.8 * len(flipped)

    answer(look / "raters" / "sheet-anna.csv", truth)
    answer(look / "raters" / "sheet-ben.csv", truth, skipped=sorted(exported)[:3])
    told = marco("relabel", "merge", *(look / "raters").glob("*.csv"), "--key", look / "key.csv", "--output", overlay)
    assert f"all: {len(found)} of {len(exported)} changed" in told and "3 answers are empty" in told
    marco("data", "ingest", "--output", tmp_path / "second", "--overlay", overlay, tmp_path / "drops")

    summary = json.loads((tmp_path / "second" / "summary.json").read_text())
    assert summary["relabelled"]["total"] == len(found) and not summary["overlay_unused"]
    written = [
        tf.train.Example.FromString(data)
        for path in (tmp_path / "second" / "examples").glob("*/*.gz")
        for data in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
    ]
    changed = set()
    for example in written:
        feature = {
            name: held.bytes_list.value[0].decode()
            for name, held in example.features.feature.items()
            if held.bytes_list.value and name != contract.ENCODED
        }
        number = example.features.feature[contract.IMAGE_ID].int64_list.value[0]
        if feature[contract.LABEL_TEXT] != filed[number].label:
            changed.add(number)
            assert feature[contract.GIVEN_TEXT] == filed[number].label
            assert feature[contract.LABEL_TEXT] == feature[contract.OVERLAY_LABEL] == truth[number]
            assert feature[contract.OVERLAY_RATER] in ("anna+ben", "ben+anna", "anna")
            assert feature[contract.OVERLAY_DATE] == "2026-01-15"
    assert changed == found

    after = fitted(tmp_path / "second" / "examples", tmp_path / "after")
    evaluated = [one for one in filed.values() if one.split == "eval"]
    assert accuracy(after, evaluated, truth) > accuracy(before, evaluated, truth)
