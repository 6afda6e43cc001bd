"""ExampleGen under an overlay: experts' labels replace the records' own, and every answer is traced."""

import csv

import pytest
import tensorflow as tf

from components.example_gen.checks import restore_label
from components.example_gen.ingest import ingest
from components.settings import IngestOptions
from marco_data import contract
from marco_data.shards import fingerprint
from marco_model.errors import InputError
from marco_model.labels import CLASSES, LabelScheme

OVERLAY = """image_id,label,rater,date
1,Other,anna,2026-01-01
1,crystals,anna+ben,2026-02-01
2,Clear,anna,2026-02-01
51,Precipitate,ben,2026-02-01
99,Clear,ben,2026-02-01
7,Clear,ben,2026-02-01
100,Clear,ben,2026-02-01
12345,Clear,ben,2026-02-01
"""


def value(example, name):
    feature = example.features.feature[name]
    return (feature.bytes_list.value or feature.int64_list.value)[0]


def records(folder, pattern="Split-*/*"):
    files = sorted(str(path) for path in folder.glob(pattern))
    examples = map(contract.parse_example, tf.data.TFRecordDataset(files).as_numpy_iterator())
    return {value(example, contract.IMAGE_ID): example for example in examples}


@pytest.fixture
def drops(make_example, write_shard, tmp_path):
    """Ten training images, labelled by number % 4; 99 is a copy of 0, 7 also an evaluation image, 100 has no class."""
    train = [make_example(number) for number in range(10)]
    train += [make_example(99, encoded=value(train[0], contract.ENCODED)), make_example(100, label=7)]
    write_shard(tmp_path / "in" / "train-00001-of-00001", train)
    write_shard(tmp_path / "in" / "test-00001-of-00001", [make_example(number) for number in (7, 50, 51, 52)])
    (tmp_path / "overlay.csv").write_text(OVERLAY)
    return tmp_path


@pytest.fixture
def ingested(drops):
    options = IngestOptions(overlay=str(drops / "overlay.csv"))
    return drops, ingest([str(drops / "in")], str(drops / "out"), str(drops / "bad"), options)


def test_the_newest_answer_becomes_the_class_and_the_record_names_its_rater(ingested, make_example):
    folder, _ = ingested
    written = records(folder / "out")
    assert len(written) == 13
    for number, example in written.items():
        names = (
            [value(example, name) for name in (contract.LABEL_TEXT, contract.GIVEN_TEXT)]
            if number in (1, 2, 51, 7)
            else []
        )
        expected = {
            1: [b"Crystals", b"Crystals"],
            2: [b"Clear", b"Other"],
            51: [b"Precipitate"] * 2,
            7: [b"Clear", b"Precipitate"],
        }
        assert names == expected.get(number, [])
        for name in (contract.INSTITUTION, contract.IMAGER):
            del example.features.feature[name]
        original = make_example(number)
        if names:
            assert value(example, contract.LABEL) == CLASSES.index(names[0].decode())
            assert contract.parse_example(restore_label(example.SerializeToString())) == original
        else:
            assert example == original
    overlaid = (contract.OVERLAY_LABEL, contract.OVERLAY_RATER, contract.OVERLAY_DATE)
    assert [value(written[1], name) for name in overlaid] == [b"crystals", b"anna+ben", b"2026-02-01"]


def test_every_answer_is_accounted_for(ingested):
    folder, summary = ingested
    assert summary["relabelled"] == {
        "total": 2,
        "confirmed": 2,
        "splits": {"train": 1, "validation": 0, "eval": 1},
        "by_class": {"Other": {"Clear": 1}, "Precipitate": {"Clear": 1}},
    }
    assert summary["overlay_unused"] == [12345]
    assert summary["overlay_not_written"] == [99, 100]
    with (folder / "bad" / "overlay.csv").open() as file:
        rows = {int(row["image_id"]): row for row in csv.DictReader(file)}
    assert {number: (row["outcome"], row["split"], row["given"]) for number, row in rows.items()} == {
        1: ("confirmed", "train", "Crystals"),
        2: ("changed", "train", "Other"),
        7: ("changed", "eval", "Precipitate"),
        51: ("confirmed", "eval", "Precipitate"),
        99: ("quarantined", "", ""),
        100: ("quarantined", "", ""),
        12345: ("unused", "", ""),
    }
    assert rows[1]["rater"] == "anna+ben" and rows[1]["date"] == "2026-02-01"


def test_duplicates_are_quarantined_unchanged(ingested, make_example):
    folder, summary = ingested
    assert summary["reasons"] == {
        contract.DUPLICATE_CONTENT: 1, contract.TRAIN_AND_EVAL: 1, contract.UNKNOWN_LABEL: 1,
    }  # fmt: skip
    kept = records(folder / "bad", "records-*.tfrecord")
    assert kept[7] == make_example(7)
    assert kept[99] == make_example(99, encoded=value(make_example(0), contract.ENCODED))


def test_a_scheme_looks_up_the_answer_instead_of_the_label(drops):
    table = {"Clear": "Nothing", "Precipitate": "Nothing", "Other": None}
    scheme = LabelScheme("hits", ("Crystals", "Nothing"), "class", table)
    (drops / "overlay.csv").write_text(
        "image_id,label,rater,date\n2,Crystals,a,2026-01-01\n4,Nothing,a,2026-01-01\n5,Other,a,2026-01-01\n"
    )
    options = IngestOptions(overlay=str(drops / "overlay.csv"), label_scheme=scheme)
    summary = ingest([str(drops / "in")], str(drops / "out"), str(drops / "bad"), options)
    assert summary["relabelled"]["by_class"] == {"Other": {"Crystals": 1}}
    assert summary["relabelled"]["confirmed"] == 1
    assert summary["overlay_not_written"] == [5]
    assert summary["left_out_labels"] == {"Other": 2, "Other of the overlay": 1}
    written = records(drops / "out")
    assert value(written[2], contract.LABEL_TEXT) == b"Crystals" and 5 not in written


def test_raw_labels_are_answered_by_their_classes(drops):
    scheme = LabelScheme("own", ("Hit", "None"), "raw", {**dict.fromkeys(map(str, range(38)), "None"), "1": "Hit"})
    (drops / "overlay.csv").write_text("image_id,label,rater,date\n2,hit,a,2026-01-01\n1,None,a,2026-01-01\n")
    options = IngestOptions(overlay=str(drops / "overlay.csv"), label_scheme=scheme)
    summary = ingest([str(drops / "in")], str(drops / "out"), str(drops / "bad"), options)
    assert summary["relabelled"]["by_class"] == {"Hit": {"None": 1}, "None": {"Hit": 1}}


def test_a_label_that_the_scheme_does_not_know_stops_the_ingest_before_anything_is_read(drops):
    (drops / "overlay.csv").write_text("image_id,label,rater,date\n2,Crystal,a,2026-01-01\n")
    with pytest.raises(InputError, match=r"overlay.csv, line 2: label 'Crystal' is not one of Clear, Crystals"):
        ingest(
            [str(drops / "in")],
            str(drops / "out"),
            str(drops / "bad"),
            IngestOptions(overlay=str(drops / "overlay.csv")),
        )
    assert not (drops / "out").exists()


def test_without_an_overlay_none_is_mentioned(drops):
    summary = ingest([str(drops / "in")], str(drops / "out"), str(drops / "bad"))
    assert summary["relabelled"]["total"] == 0 and summary["overlay_unused"] == []
    assert not (drops / "bad" / "overlay.csv").exists()


def test_the_fingerprint_of_the_data_covers_the_overlay(drops):
    source, overlay = [str(drops / "in")], str(drops / "overlay.csv")
    without, before = fingerprint(source), fingerprint(source, overlay)
    assert without != before == fingerprint(source, overlay)
    (drops / "overlay.csv").write_text(OVERLAY.replace("ben", "eva"))
    assert fingerprint(source, overlay) not in (without, before)
