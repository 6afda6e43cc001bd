"""The real ingest on a real Beam runner, on a set with every kind of damage."""

import collections
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
import tensorflow as tf

from components.example_gen.ingest import ingest, ingest_to_folder
from components.settings import BY_HASH, LOCAL_BEAM_ARGS, IngestOptions
from marco_data import contract, tfrecord
from marco_model import store
from marco_model.errors import InputError
from tests import processes


def read_split(folder, split):
    files = sorted(str(path) for path in (Path(folder) / f"Split-{split}").iterdir())
    return [contract.parse_example(data.numpy()) for data in tf.data.TFRecordDataset(files)]


def value(example, name):
    feature = example.features.feature[name]
    return (feature.bytes_list.value or feature.int64_list.value)[0]


def entries(quarantine):
    with (Path(quarantine) / "quarantine.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def all_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def done(damaged_set, tmp_path_factory):
    """The damaged set, ingested: (folder, summary)."""
    folder = tmp_path_factory.mktemp("ingested")
    return folder, ingest([damaged_set.folder], str(folder / "examples"), str(folder / "quarantine"))


def test_each_damaged_record_is_quarantined_with_its_reason_and_place(done, damaged_set):
    assert len(damaged_set.damage) == 20
    found = [
        (entry["shard"], int(entry["offset"]), int(entry["index"]), entry["image_id"], entry["reason"])
        for entry in entries(done[0] / "quarantine")
    ]
    assert sorted(found) == sorted(entry[:5] for entry in damaged_set.damage)
    assert all(entry["detail"] for entry in entries(done[0] / "quarantine"))


def test_counts_add_up_to_the_record(done, damaged_set):
    folder, summary = done
    sound = sum(map(len, damaged_set.sound.values()))
    assert summary["read"] == sound + 20
    assert summary["written"] == sound
    assert summary["quarantined"] == 20
    assert summary["reasons"] == dict(sorted(collections.Counter(entry.reason for entry in damaged_set.damage).items()))
    assert summary["splits"] == {split: len(ids) for split, ids in damaged_set.sound.items()}
    assert summary["empty_shards"] == ["train-00005-of-00005"]
    assert json.loads((folder / "quarantine" / "summary.json").read_text())["read"] == sound + 20
    with (folder / "quarantine" / "counts.csv").open() as file:
        assert {row["reason"]: int(row["count"]) for row in csv.DictReader(file)} == summary["reasons"]


def test_every_sound_record_is_written_as_it_was_with_institution_and_imager(done, damaged_set, make_example):
    institutions = ["Bristol-Myers Squibb", "CSIRO", "HWMRI", "GlaxoSmithKline", "Merck"]
    for split, ids in damaged_set.sound.items():
        written = {value(example, contract.IMAGE_ID): example for example in read_split(done[0] / "examples", split)}
        assert set(written) == ids
        for number, example in written.items():
            assert value(example, contract.INSTITUTION).decode() == institutions[number % 5]
            imager = "HWMRI home system" if number % 5 == 2 else "Formulatrix Rock Imager"
            assert value(example, contract.IMAGER).decode() == imager
            del example.features.feature[contract.INSTITUTION], example.features.feature[contract.IMAGER]
            image_format = "PNG" if number in (20, 21) else "JPEG"
            assert example == make_example(number, image_format=image_format)


def test_the_original_bytes_of_what_failed_are_kept_in_the_order_of_the_table(done, damaged_set):
    quarantine = done[0] / "quarantine"
    files = sorted(str(path) for path in quarantine.glob("records-*.tfrecord"))
    kept = [data.numpy() for data in tf.data.TFRecordDataset(files)]
    by_place = {(entry.shard, entry.index): entry for entry in damaged_set.damage}
    listed = [by_place[entry["shard"], int(entry["index"])] for entry in entries(quarantine)]
    assert kept == [entry.data for entry in listed if entry.reason not in tfrecord.REST_REASONS]
    rests = {path.name.rsplit("-", 1)[1]: path.read_bytes() for path in quarantine.glob("rest-of-*.bin")}
    for entry in damaged_set.damage:
        if entry.reason in (tfrecord.BAD_LENGTH, tfrecord.TRUNCATED_SHARD):
            assert rests[f"{entry.offset}.bin"] == entry.data
        elif entry.reason == tfrecord.BAD_COMPRESSION:
            assert entry.data.startswith(rests[f"{entry.offset}.bin"])
            assert len(rests[f"{entry.offset}.bin"]) > 10_000


def test_no_temporary_files_remain(done):
    assert sorted(path.name for path in done[0].rglob("*") if "staging" in path.name or "part" in path.name) == []


def test_outputs_do_not_depend_on_how_the_work_is_divided(done, damaged_set, tmp_path):
    """Many small work units give the same records, whatever order the runner handles them in."""
    options = IngestOptions(shard_bytes=5_000, decode_workers=1)
    for attempt in ("one", "two"):
        folder = tmp_path / attempt
        summary = ingest([damaged_set.folder], str(folder / "examples"), str(folder / "quarantine"), options)
        assert summary == done[1]
        assert entries(folder / "quarantine") == entries(done[0] / "quarantine")
        assert len(list((folder / "examples" / "Split-train").iterdir())) > 10
        for split in damaged_set.sound:
            assert read_split(folder / "examples", split) == read_split(done[0] / "examples", split)
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two")


def test_a_folder_that_holds_something_is_left_alone(damaged_set, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        ingest_to_folder([damaged_set.folder], tmp_path, IngestOptions())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_two_ingests_into_one_folder_do_not_mix(damaged_set, tmp_path):
    with store.sole_writer(tmp_path), pytest.raises(InputError, match="another process writes into"):
        ingest_to_folder([damaged_set.folder], tmp_path, IngestOptions())
    (tmp_path / "quarantine").mkdir()  # Of a killed one.
    ingest_to_folder([damaged_set.folder], tmp_path, IngestOptions())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["examples", "quarantine", "summary.json"]


@pytest.mark.long
@pytest.mark.slow
def test_two_worker_processes_write_the_same_bytes(damaged_set, tmp_path, monkeypatch):
    # Workers inherit the environment, so each reports its process id when Python starts.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'sdk_worker_main' in ' '.join(sys.orig_argv):\n"
        f"    print(os.getpid(), file=open({str(tmp_path / 'workers')!r}, 'a'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = IngestOptions(shard_bytes=5_000)
    arguments = [LOCAL_BEAM_ARGS[0], "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    ingest([damaged_set.folder], str(alone / "examples"), str(alone / "quarantine"), options)
    ingest(
        [damaged_set.folder],
        str(together / "examples"),
        str(together / "quarantine"),
        options,
        beam.Pipeline(argv=arguments),
    )
    workers = {int(line) for line in (tmp_path / "workers").read_text().split()}
    assert len(workers) == 2 and os.getpid() not in workers
    assert all_bytes(together) == all_bytes(alone)


def test_a_set_over_the_limit_gives_up_with_the_reasons_and_leaves_the_quarantine(damaged_set, tmp_path):
    examples, quarantine = tmp_path / "examples", tmp_path / "quarantine"
    with pytest.raises(
        InputError, match=r"20 of \d+ records .* over the limit of 10.00%: .*undecodable_image 2"
    ) as error:
        ingest([damaged_set.folder], str(examples), str(quarantine), IngestOptions(max_quarantined=0.1))
    assert "\n" not in str(error.value)
    assert len(entries(quarantine)) == 20
    assert not [path for path in examples.rglob("*") if path.is_file()]


def test_what_the_rest_of_a_shard_held_counts_for_the_limit(make_example, write_shard, tmp_path):
    """A length is damaged after 10 of 50 records of about one size."""
    shard = tmp_path / "in" / "train-00001-of-00001"
    write_shard(shard, [make_example(number) for number in range(50)])
    write_shard(tmp_path / "in" / "test-00001-of-00001", [make_example(number) for number in range(50, 60)])
    content = bytearray(shard.read_bytes())
    ends = [record.offset for record in tfrecord.read_records(io.BytesIO(content))]
    content[ends[10]] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        InputError, match=r"1 of 21 records and about (3[5-9]|4[0-3]) more \((6[0-9]|70)\.\d+%\) failed"
    ):
        ingest([str(tmp_path / "in")], str(tmp_path / "a"), str(tmp_path / "b"), IngestOptions(max_quarantined=0.5))
    options = IngestOptions(max_quarantined=0.8)
    summary = ingest([str(tmp_path / "in")], str(tmp_path / "c"), str(tmp_path / "d"), options)
    assert summary["read"] == summary["written"] + summary["quarantined"] == 21
    assert 35 <= summary["lost"] <= 43


def test_records_without_a_byte_are_refused_by_the_limit(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train-00001-of-00001").write_bytes(tfrecord.frame(b"") * 2)
    with pytest.raises(InputError, match=r"2 of 2 records \(100.00%\) failed, .*missing_feature 2"):
        ingest([str(tmp_path / "in")], str(tmp_path / "out"), str(tmp_path / "bad"), IngestOptions(max_quarantined=0.5))


def test_a_hashed_split_keeps_plates_together_and_finds_the_same_image_under_two_ids(
    make_example, write_shard, tmp_path
):
    examples = [make_example(number) for number in range(60)]
    twin = make_example(99, encoded=value(examples[5], contract.ENCODED), filename="other_A1_ImagerDefaults_1.jpg")
    write_shard(tmp_path / "in" / "part-00001-of-00001", [*examples, twin])
    options = IngestOptions(split_by=BY_HASH, eval_share=0.4)
    summary = ingest([str(tmp_path / "in")], str(tmp_path / "out"), str(tmp_path / "bad"), options)
    assert (summary["read"], summary["written"]) == (61, 60)
    plates = {
        split: {value(example, contract.FILENAME).split(b"_")[0] for example in read_split(tmp_path / "out", split)}
        for split in ("train", "eval")
    }
    assert not plates["train"] & plates["eval"]
    assert plates["train"] and plates["eval"]


def ids_by_split(folder):
    index = {path.name.removeprefix("Split-") for path in folder.glob("Split-*")}
    return {split: {value(example, contract.IMAGE_ID) for example in read_split(folder, split)} for split in index}


@pytest.mark.parametrize(
    ("names", "options", "splits"),
    [
        (("train", "test"), {"validation_share": 0.4}, {"train", "validation", "eval"}),
        (("train", "test"), {"splits": "as_published"}, {"train", "eval"}),
        (("train", "val", "test"), {"validation_share": 0.4}, {"train", "validation", "eval"}),
        (("train", "val", "test"), {"splits": "as_published"}, {"train", "validation", "eval"}),
        (("train", "val"), {"splits": "as_published"}, {"train", "eval"}),
        (("train", "val"), {"validation_share": 0.4}, {"train", "validation", "eval"}),
    ],
)
def test_a_validation_split_is_drawn_out_of_training_by_plate_unless_the_set_has_one(
    make_example, write_shard, tmp_path, names, options, splits
):
    brought = {}
    for place, name in enumerate(names):
        brought[name] = set(range(100 * place, 100 * place + 60))
        write_shard(tmp_path / "in" / f"{name}-00001-of-00001", [make_example(number) for number in brought[name]])
    summary = ingest([str(tmp_path / "in")], str(tmp_path / "out"), str(tmp_path / "bad"), IngestOptions(**options))
    written = ids_by_split(tmp_path / "out")
    assert set(written) == set(summary["splits"]) == splits
    assert written["eval"] == brought[names[-1]]
    if "validation" in splits and len(names) == 3:
        assert (written["train"], written["validation"]) == (brought["train"], brought["val"])
    elif "validation" in splits:
        assert written["train"] | written["validation"] == brought["train"]
        # The plate of an example is that of its number modulo 7.
        assert not {number % 7 for number in written["train"]} & {number % 7 for number in written["validation"]}
        assert written["validation"]
        assert "validation" in {path.stem.removeprefix("Split-") for path in (tmp_path / "out" / "index").iterdir()}


def test_without_sources_csv_institutions_go_by_number(make_example, write_shard, tmp_path):
    write_shard(tmp_path / "in" / "train-00001-of-00001", [make_example(1, source=12)])
    summary = ingest([str(tmp_path / "in")], str(tmp_path / "out"), str(tmp_path / "bad"))
    assert summary["sources"] is False
    (example,) = read_split(tmp_path / "out", "train")
    assert value(example, contract.INSTITUTION) == b"source 12"
    assert value(example, contract.IMAGER) == b"unknown"
    assert read_split(tmp_path / "out", "eval") == []


def test_a_shard_whose_name_has_no_split_is_reported(make_example, write_shard, tmp_path):
    write_shard(tmp_path / "part-00001-of-00001", [make_example(1)])
    with pytest.raises(InputError, match="part-00001-of-00001"):
        ingest([str(tmp_path)], str(tmp_path / "out"), str(tmp_path / "bad"))


@pytest.mark.long
def test_the_command_writes_the_layout_that_the_design_names(damaged_set, tmp_path):
    arguments = ["data", "ingest", "--output"]
    done = processes.run_marco(*arguments, tmp_path / "out", damaged_set.folder, modules=processes.PIPELINE)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["quarantined"] == 20 == len(entries(tmp_path / "out" / "quarantine"))
    assert f"{summary['read']} records read" in done.stdout
    assert all(f"{reason} {count}" in done.stdout for reason, count in summary["reasons"].items())
    # Imports in a new interpreter must not add a line to stderr.
    command = [sys.executable, "-m", "pipelines.cli", *arguments, tmp_path / "new", tmp_path / "none"]
    missing = subprocess.run(command, capture_output=True, text=True)
    assert missing.returncode == 2
    assert len(missing.stderr.splitlines()) == 1
    assert missing.stderr.startswith("error: ") and "does not exist" in missing.stderr
