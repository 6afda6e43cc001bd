import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from marco_data import contract
from marco_data.name_tables import INSTITUTIONS, TABLE_I, parse_table
from marco_data.synthetic import KINDS, Settings, synthesize
from marco_model.errors import InputError
from marco_model.labels import CLASSES

SETTINGS = Settings(seed=5, shorter_side=64, eval_share=0.25, label_noise=0.2)
IMAGES = 40


@pytest.fixture(scope="module")
def drops(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic") / "drops"
    synthesize(directory, IMAGES, SETTINGS, shard_images=16, processes=1)
    return directory


def _examples(directory):
    import tensorflow as tf

    for path in sorted(directory.glob("t*-of-*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield path, tf.train.Example.FromString(record).features.feature


def _bytes(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_processes_and_repetition_change_no_byte(drops, tmp_path):
    synthesize(tmp_path / "again", IMAGES, SETTINGS, shard_images=16, processes=2)
    assert _bytes(tmp_path / "again") == _bytes(drops)


def test_shards_are_named_and_filled_as_marco_does(drops):
    counts = Counter(path.name for path, _ in _examples(drops))
    assert sum(counts.values()) == IMAGES
    trains = sorted(name for name in counts if name.startswith("train"))
    assert trains == [f"train-{n:05d}-of-{len(trains):05d}" for n in range(1, len(trains) + 1)]
    assert [counts[name] for name in trains[:-1]] == [16] * (len(trains) - 1)
    assert counts["test-00001-of-00001"] == pytest.approx(IMAGES / 4, abs=2)


def test_every_example_keeps_the_contract(drops):
    seen = set()
    for _, feature in _examples(drops):
        assert set(feature) == {*contract.BYTES_FEATURES, *contract.INT_FEATURES}
        number = {name: feature[name].int64_list.value[0] for name in contract.INT_FEATURES}
        text = {name: feature[name].bytes_list.value[0] for name in contract.BYTES_FEATURES}
        image = cv2.imdecode(np.frombuffer(text[contract.ENCODED], np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (number[contract.HEIGHT], number[contract.WIDTH], number[contract.CHANNELS])
        assert min(image.shape[:2]) == 64
        assert text[contract.FORMAT] == b"JPEG" and text[contract.COLORSPACE] == b"RGB"
        assert text[contract.LABEL_TEXT].decode() == CLASSES[number[contract.LABEL]]
        assert 0 <= number[contract.SOURCE] < len(INSTITUTIONS)
        assert 0 <= number[contract.LABEL_RAW] < len(KINDS)
        assert b"/" not in text[contract.FILENAME]
        seen.add(number[contract.IMAGE_ID])
    assert seen == set(range(IMAGES))


def test_the_manifest_lists_the_wrong_labels(drops):
    noise = json.loads((drops / "synthetic.json").read_text())["label_noise"]
    wrong = {}
    for _, feature in _examples(drops):
        shown = KINDS[feature[contract.LABEL_RAW].int64_list.value[0]].label
        filed = feature[contract.LABEL_TEXT].bytes_list.value[0].decode()
        if shown != filed:
            wrong[str(feature[contract.IMAGE_ID].int64_list.value[0])] = [shown, filed]
    assert wrong == noise
    assert 2 <= len(noise) <= 16


def test_tables_name_the_numbers(drops):
    assert parse_table((drops / "sources.csv").read_text(), "table") == TABLE_I
    assert parse_table((drops / "labels-norm.csv").read_text(), "table") == dict(enumerate(CLASSES))
    assert parse_table((drops / "labels-raw.csv").read_text(), "table") == {
        n: kind.name for n, kind in enumerate(KINDS)
    }


def test_an_existing_set_is_left_alone(drops):
    before = {path.name: path.stat().st_mtime_ns for path in drops.iterdir()}
    synthesize(drops, IMAGES, SETTINGS, shard_images=16)
    assert {path.name: path.stat().st_mtime_ns for path in drops.iterdir()} == before


def test_other_existing_files_are_never_changed(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(InputError, match="holds something else"):
        synthesize(tmp_path, 2, SETTINGS, processes=1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_another_synthetic_set_is_replaced_only_on_request(tmp_path):
    target = tmp_path / "drops"
    synthesize(target, 2, SETTINGS, processes=1)
    with pytest.raises(InputError, match="another synthetic set"):
        synthesize(target, 3, SETTINGS, processes=1)
    assert synthesize(target, 3, SETTINGS, processes=1, overwrite=True)["images"] == 3
    assert sum(1 for _ in _examples(target)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["drops"]


@pytest.mark.parametrize("lost", ["train-00001-of-00003", "test-00001-of-00001"])
def test_a_set_that_lost_a_shard_is_drawn_again(tmp_path, lost):
    target = tmp_path / "drops"
    synthesize(target, 10, SETTINGS, processes=1, shard_images=3)
    shards = {path.name: path.read_bytes() for path in target.iterdir()}
    (target / lost).unlink()
    synthesize(target, 10, SETTINGS, processes=1, shard_images=3)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == shards


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    rest = tmp_path / ".drops.0123456789ab.partial"
    rest.mkdir()
    (rest / "train-00001-of-00001").write_bytes(b"half")
    synthesize(tmp_path / "drops", 2, SETTINGS, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["drops"]


@pytest.mark.parametrize("number", ["images", "shard_images", "processes"])
def test_bad_numbers_are_reported_in_one_error(tmp_path, number):
    with pytest.raises(InputError, match=f"{number} is 0"):
        synthesize(tmp_path / "drops", **{"images": 2, number: 0})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_its_processes_end_with_a_run_that_is_killed():
    """On 363bfd5 they waited for work for ever."""
    code = """
from marco_data.synthetic import writer
from marco_data.synthetic.plan import Settings
if __name__ == "__main__":
    for jpeg in writer.jpegs(list(range(1000)), Settings(shorter_side=100), 2):
        print("drawn", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        tasks = Path(f"/proc/{process.pid}/task")
        children = {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}
        assert len(children) >= 2
        process.kill()
    deadline = time.monotonic() + 20
    while (alive := {child for child in children if Path(f"/proc/{child}").exists()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive
