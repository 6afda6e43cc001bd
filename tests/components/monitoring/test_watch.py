"""Both jobs on Beam, from shards and files to the report."""

import json
import os
import shutil

import numpy as np
import pytest

from marco_model.errors import InputError
from tests import stores

HOME, MERCK = "HWMRI / HWMRI home system", "Merck / Formulatrix Rock Imager"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """120 synthetic drops of two imagers."""
    from marco_data.synthetic import Settings, synthesize

    folder = tmp_path_factory.mktemp("sets") / "drops"
    synthesize(folder, 120, Settings(seed=3, shorter_side=64, institutions={"HWMRI": 1.0, "Merck": 1.0}), processes=1)
    return folder


@pytest.fixture(scope="module")
def made(shards, small_model, tmp_path_factory):
    """A reference of the drops, and its folder."""
    from components.monitoring.drift import make_reference, write_reference
    from components.monitoring.measure import Naming, Setup, measure_images
    from components.monitoring.watch import model_facts

    folder = tmp_path_factory.mktemp("references") / "reference"
    setup = Setup(str(small_model), Naming(), f"{folder}.rows")
    reference = make_reference(measure_images([str(shards)], setup, 50), model_facts(small_model))
    write_reference(reference, folder)
    return reference, folder


def test_a_reference_is_a_sample_of_each_imager(made, shards):
    reference, folder = made
    assert reference.facts["measured"] == {HOME: 50, MERCK: 50}
    counts = json.loads((shards / "synthetic.json").read_text())["counts"]["institution"]
    assert reference.facts["seen"] == {HOME: counts["HWMRI"], MERCK: counts["Merck"]}
    assert reference.table.embedding.shape == (100, 32)
    assert len(set(zip(reference.table.imager, reference.table.name, strict=True))) > 90
    assert [sum(map(bool, reference.table.of_imager(imager).thumbnail)) for imager in (HOME, MERCK)] == [8, 8]
    assert not folder.with_name(f"{folder.name}.rows").exists()


def test_the_rows_of_a_reference_match_its_images_measured_singly(made, shards, small_model):
    import tensorflow as tf

    from components.monitoring.statistics import image_statistics
    from marco_model.load import open_classifier

    reference, _ = made
    by_name = {}
    for shard in sorted(shards.glob("t*-of-*")):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            name = features["image/filename"].bytes_list.value[0].decode()
            by_name[name] = features["image/encoded"].bytes_list.value[0]
    some = reference.table.take(np.arange(0, 100, 17))
    encoded = [by_name[name] for name in some.name]
    classifier = open_classifier(small_model)
    np.testing.assert_allclose(some.scores, classifier.score(encoded), atol=1e-5)
    np.testing.assert_allclose(some.statistics, [image_statistics(data) for data in encoded])
    projected = (classifier.embed(encoded) - reference.mean) @ reference.components.T
    np.testing.assert_allclose(some.embedding, projected, atol=1e-3)


def test_a_reference_is_read_as_it_was_written(made):
    from components.monitoring.drift import read_reference

    reference, folder = made
    got = read_reference(str(folder))
    assert got.facts == reference.facts
    for name, column in vars(reference.table).items():
        np.testing.assert_array_equal(getattr(got.table, name), column)


def test_another_model_is_refused(made):
    with pytest.raises(InputError, match="was made with another model, small"):
        made[0].require_model("1234")


@pytest.fixture(scope="module")
def files(drops, tmp_path_factory):
    """Image files by imager: one imager's are darkened; a broken one, a hidden one, one whose name is not UTF-8."""
    import cv2

    folder = tmp_path_factory.mktemp("incoming")
    for number, (imager, _, jpeg) in enumerate(drops[:140]):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        place = folder / imager.split()[0] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(place), (image * 0.6).astype(np.uint8) if imager == HOME else image)
    some = next((folder / "Merck").iterdir())
    some.rename(some.with_name(os.fsdecode(b"tr\xf6pfchen.png")))
    (folder / "HWMRI" / "broken.jpg").write_bytes(b"no image")
    shutil.copy(folder / "HWMRI" / "broken.jpg", folder / "HWMRI" / ".hidden.jpg")
    return folder


def test_a_check_reports_which_imager_changed_and_how(made, files, small_model, tmp_path):
    from components.monitoring.measure import Naming, Setup, parse_rules
    from components.monitoring.two_sample import Limits
    from components.monitoring.watch import check_images

    naming = Naming(parse_rules([f"HWMRI/*={HOME}", f"Merck/*={MERCK}"]))
    output = tmp_path / "out"
    outcome = check_images(
        [str(files)], output, made[0], Setup(str(small_model), naming, f"{tmp_path}/rows"), Limits(least=40)
    )
    assert outcome == json.loads((output / "drift.json").read_text())
    assert outcome["alarm"]
    first, second = outcome["imagers"]
    assert (first["imager"], first["first"], second["status"]) == (HOME, "brightness", "clean")
    assert first["seen"] == first["images"] + 1
    assert second["seen"] == second["images"] == len(list((files / "Merck").iterdir()))
    assert outcome["unreadable"] == [
        {"imager": HOME, "name": "HWMRI/broken.jpg", "reason": "not a JPEG, PNG, TIFF or BMP image"}
    ]
    page = (output / "drift.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 6 and "<svg" in page
    assert "http://" not in page and "https://" not in page


def test_a_check_without_new_images_raises_no_alarm(made, files, small_model, tmp_path):
    from components.monitoring.measure import Naming, Setup
    from components.monitoring.two_sample import Limits
    from components.monitoring.watch import check_images

    outcome = check_images(
        [str(files)], tmp_path / "out", made[0], Setup(str(small_model), Naming(), f"{tmp_path}/rows"), Limits(), days=0
    )
    assert (outcome["alarm"], outcome["imagers"], outcome["seen"]) == (False, [], 0)


def test_a_check_is_logged_as_an_mlflow_run(made, files, tmp_path):
    from components import mlflow_store
    from components.monitoring import watch

    outcome = {
        "checked": "2026-01-01",
        "alarm": True,
        "images": 60,
        "unreadable": [],
        "model": {"name": "small"},
        "imagers": [
            {"imager": HOME, "status": "alarm", "images": 60, "tests": [{"name": "brightness", "effect": 0.4}]}
        ],
    }
    uri = stores.local_store(tmp_path / "mlflow")
    report = tmp_path / "drift.html"
    report.write_text("<html></html>")
    run = mlflow_store.connect(uri).get_run(watch.log_to_mlflow(uri, outcome, [report]))
    assert run.data.metrics["HWMRI - HWMRI home system/brightness"] == 0.4
    assert run.data.metrics["alarms"] == 1
    assert (run.data.tags["marco.alarm"], run.info.status) == ("true", "FINISHED")
    assert [file.path for file in mlflow_store.connect(uri).list_artifacts(run.info.run_id)] == ["drift.html"]
