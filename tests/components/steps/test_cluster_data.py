import json

import pytest

from components.champion import Lookup, signature
from components.steps import cluster_data
from marco_data.shards import fingerprint
from marco_model import store
from marco_model.errors import InputError

LOOKUP = Lookup(champion="registry", tracking="sqlite:////nowhere/mlflow.db", model_name="marco", settings="settings")
SMALL = {"images": 8, "seed": 3, "eval_share": 0.25, "shorter_side": 48, "label_noise": 0.0}


def arguments(folder, source="", place="", synthetic=None, steps=""):
    outputs = [
        part for name in cluster_data.OUTPUTS for part in (f"--{name}-file", str(folder / "out" / name / "file"))
    ]
    return [
        *("--source", source, "--place", str(place), "--synthetic", json.dumps(synthetic)),
        *("--initial", "random", "--lookup", LOOKUP.model_dump_json(), "--steps", steps, *outputs),
    ]


def outputs(folder):
    return {name: (folder / "out" / name / "file").read_text() for name in cluster_data.OUTPUTS}


def test_synthetic_data_are_drawn_once_and_described_the_same_again(tmp_path):
    place = tmp_path / "data"
    cluster_data.main(arguments(tmp_path, place=place, synthetic=SMALL))
    first = outputs(tmp_path)
    content = fingerprint([str(place)])
    assert first == {
        "source": str(place),
        "fingerprint": content,
        "initial": "random",
        "champion": "",
        "signature": signature("settings", content, "random", ""),
    }
    drawn = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    cluster_data.main(arguments(tmp_path, place=place, synthetic=SMALL))
    assert outputs(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == drawn


def test_changed_data_have_another_fingerprint(tmp_path):
    description = cluster_data.describe("", "random", SMALL, str(tmp_path / "data"))
    assert cluster_data.describe(description["source"], "random", SMALL, "elsewhere") == description
    shard = next((tmp_path / "data").glob("train-*"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    changed = cluster_data.describe(description["source"], "random", None, "elsewhere")
    assert changed["source"] == description["source"]
    assert changed["fingerprint"] != description["fingerprint"]


@pytest.mark.parametrize("steps", ["0", "many", "-1", "1.5"])
def test_a_wrong_number_of_steps_is_refused_before_anything_is_done(tmp_path, steps):
    with pytest.raises(InputError, match=f"steps is '{steps}'"):
        cluster_data.main(arguments(tmp_path, place=tmp_path / "data", synthetic=SMALL, steps=steps))
    assert not (tmp_path / "data").exists()


@pytest.mark.long
def test_synthetic_data_in_a_bucket_are_drawn_once_and_again_if_they_are_incomplete(gcs, tmp_path):
    gcs.bucket("bucket")
    description = cluster_data.describe("", "random", SMALL, "gs://bucket/runs/synthetic")
    cluster_data.describe("", "random", SMALL, str(tmp_path / "data"))
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert gcs.objects("gs://bucket/runs/synthetic/") == drawn
    stamps = [item.generation for item in store.list_objects("gs://bucket/runs/synthetic/")]
    assert cluster_data.describe("", "random", SMALL, "gs://bucket/runs/synthetic") == description
    assert [item.generation for item in store.list_objects("gs://bucket/runs/synthetic/")] == stamps
    store.blob_at("gs://bucket/runs/synthetic/synthetic.json").delete()
    store.blob_at("gs://bucket/runs/synthetic/train-9").upload_from_string(b"left over")
    cluster_data.describe("", "random", SMALL, "gs://bucket/runs/synthetic")
    assert gcs.objects("gs://bucket/runs/synthetic/") == drawn


def test_missing_data_are_reported(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        cluster_data.describe(str(tmp_path / "nowhere"), "random", None, "")


def test_an_mlflow_server_that_does_not_answer_is_not_a_missing_champion(tmp_path):
    options = arguments(tmp_path, place=tmp_path / "data", synthetic=SMALL)
    options[options.index("--lookup") + 1] = LOOKUP.model_copy(
        update={"tracking": "http://127.0.0.1:1"}
    ).model_dump_json()
    with pytest.raises(InputError, match=r"MLflow at http://127\.0\.0\.1:1 failed"):
        cluster_data.main(options)
