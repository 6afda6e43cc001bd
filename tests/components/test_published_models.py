import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components import published_models
from marco_model.errors import InputError
from marco_model.model_directory import PUSH_RECORD, model_fingerprint
from tests import processes


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model", b"first")


def make_model(folder, weights):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables/variables.data").write_bytes(weights)
    return folder


def test_versions_count_up_from_one_and_hold_the_model(tmp_path, model):
    first = published_models.publish(model, str(tmp_path / "models"), {"mlflow_run_id": "r1"})
    other = make_model(tmp_path / "other", b"second")
    second = published_models.publish(other, str(tmp_path / "models"), {})
    assert (first.number, second.number) == (1, 2)
    assert (Path(second.path) / "variables/variables.data").read_bytes() == b"second"
    note = json.loads((Path(first.path) / PUSH_RECORD).read_text())
    assert note["mlflow_run_id"] == "r1"
    assert model_fingerprint(Path(first.path)) == model_fingerprint(model) == note["fingerprint"]
    assert sorted(child.name for child in (tmp_path / "models").iterdir()) == ["1", "2"]


def test_the_same_model_twice_is_one_version_and_an_older_one_becomes_a_new_version(tmp_path, model):
    destination = str(tmp_path / "models")
    other = make_model(tmp_path / "other", b"second")
    assert published_models.publish(model, destination, {})[::2] == (1, False)
    assert published_models.publish(model, destination, {})[::2] == (1, True)
    assert published_models.publish(other, destination, {}).number == 2
    assert published_models.publish(model, destination, {}).number == 3


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"secone")])
@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data"])
def test_a_version_that_lost_or_changed_a_file_is_not_the_same_model(tmp_path, model, name, damage, caplog):
    destination = tmp_path / "models"
    published_models.publish(model, str(destination), {})
    damage(destination / "1" / name)
    assert published_models.publish(model, str(destination), {})[::2] == (2, False)
    assert "version 1 in" in caplog.text
    assert model_fingerprint(destination / "2") == model_fingerprint(model)


def test_versions_are_numbers_not_names(tmp_path, model):
    for number in ("9", "10"):
        make_model(tmp_path / "models" / number, number.encode())
    assert published_models.publish(model, str(tmp_path / "models"), {}).number == 11


def test_concurrent_pushes_get_a_version_each(tmp_path):
    models = [make_model(tmp_path / f"model{index}", bytes([index]) * 200_000) for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda model: published_models.publish(model, str(tmp_path / "models"), {}), models))
    assert sorted(version.number for version in published) == list(range(1, 9))
    for model, version in zip(models, published, strict=True):
        assert model_fingerprint(Path(version.path)) == model_fingerprint(model)


def _copy_and_wait(model, destination):
    os.fsync = lambda descriptor: (print("copied", flush=True), time.sleep(600))
    published_models.publish(model, str(destination), {})


@pytest.mark.long
def test_a_push_killed_before_the_rename_leaves_no_version_and_the_next_one_works(tmp_path, model):
    """A real process, killed with SIGKILL while its finished copy waits for the rename."""
    destination = tmp_path / "models"
    with processes.start(_copy_and_wait, model, destination) as process:
        process.wait_for_output("copied\n")
    assert published_models.folder_versions(destination) == []
    left = [child.name for child in destination.iterdir()]
    assert len(left) == 1 and left[0].startswith(".")
    assert published_models.publish(model, str(destination), {}).number == 1
    assert [child.name for child in destination.iterdir()] == ["1"]


def test_a_failed_copy_cleans_up(tmp_path, model, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        published_models.publish(model, str(tmp_path / "models"), {})
    assert list((tmp_path / "models").iterdir()) == []


def test_a_place_that_cannot_be_published_to_is_named(model):
    with pytest.raises(InputError, match=r"s3://bucket/models: give gs://"):
        published_models.publish(model, "s3://bucket/models", {})


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"saved_model\.pb"):
        published_models.publish(tmp_path, str(tmp_path / "models"), {})
    assert not (tmp_path / "models").exists()
