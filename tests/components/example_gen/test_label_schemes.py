"""ExampleGen under a label scheme: classes by the table, counts that add up, and nothing lost."""

import csv

import pytest
import tensorflow as tf

from components.example_gen.checks import Accepted, LeftOut, Rejected, Tables, check_record, relabel, restore_label
from components.example_gen.ingest import ingest
from components.settings import IngestOptions
from marco_data import contract
from marco_model.errors import InputError
from marco_model.labels import LabelScheme

# The raw labels of the examples are their numbers.
RAW = {0: "clear drop", 1: "needles", 2: "Film", 3: "dark", 4: "plates"}
SCHEME = LabelScheme(
    "classes", ("Nothing", "Crystal"), table={"0": "Nothing", "needles": "Crystal", "film": None, "dark": "Nothing"}
)


def value(example, name):
    feature = example.features.feature[name]
    return (feature.bytes_list.value or feature.int64_list.value)[0]


def records(folder, split):
    files = sorted(str(path) for path in (folder / f"Split-{split}").iterdir())
    return [contract.parse_example(data.numpy()) for data in tf.data.TFRecordDataset(files)]


@pytest.fixture
def drops(make_example, write_shard, tmp_path):
    """Twenty training images with five raw labels, one of which is a copy of another, and five evaluation images."""
    train = [make_example(number, label_raw=number % 5) for number in range(20)]
    copied = value(train[0], contract.ENCODED)
    twin = make_example(99, label_raw=3, encoded=copied)
    write_shard(tmp_path / "in" / "train-00001-of-00001", [*train, twin])
    write_shard(tmp_path / "in" / "test-00001-of-00001", [make_example(n, label_raw=n % 5) for n in range(50, 55)])
    lines = [f"{number},{name}" for number, name in RAW.items()]
    (tmp_path / "in" / "labels-raw.csv").write_text("id,name\n" + "\n".join(lines) + "\n")
    return tmp_path, twin


def test_records_get_the_classes_of_the_table_and_every_one_is_accounted_for(drops, make_example):
    folder, twin = drops
    options = IngestOptions(label_scheme=SCHEME)
    summary = ingest([str(folder / "in")], str(folder / "out"), str(folder / "bad"), options)
    assert summary["read"] == 26 == summary["written"] + summary["quarantined"] + summary["left_out"]
    assert summary["left_out_labels"] == {"raw label 2 (Film)": 5}
    assert summary["reasons"] == {contract.DUPLICATE_CONTENT: 1, contract.UNMAPPED_LABEL: 5}
    written = [*records(folder / "out", "train"), *records(folder / "out", "eval")]
    assert len(written) == 15
    for example in written:
        number, raw = value(example, contract.IMAGE_ID), value(example, contract.LABEL_RAW)
        assert value(example, contract.LABEL) == (1 if raw == 1 else 0)
        assert value(example, contract.LABEL_TEXT).decode() == ("Crystal" if raw == 1 else "Nothing")
        assert value(example, contract.GIVEN_LABEL) == number % 4
        for name in (contract.INSTITUTION, contract.IMAGER):
            del example.features.feature[name]
        original = make_example(number, label_raw=raw)
        assert contract.parse_example(restore_label(example.SerializeToString())) == original
    with (folder / "bad" / "quarantine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["detail"] for row in rows if row["reason"] == contract.UNMAPPED_LABEL} == {
        "raw label 4 (plates) has no entry"
    }
    kept = tf.data.TFRecordDataset([str(path) for path in (folder / "bad").glob("records-*.tfrecord")])
    kept = {
        value(example, contract.IMAGE_ID): example for example in map(contract.parse_example, kept.as_numpy_iterator())
    }
    assert kept[99] == twin


def test_each_shard_is_read_with_the_tables_of_its_own_set(make_example, write_shard, tmp_path):
    for number, (folder, raw) in enumerate((("a", "apple"), ("b", "good"))):
        examples = [make_example(2 * number + n, label_raw=0, source=5) for n in range(2)]
        for split, example in zip(("train", "test"), examples, strict=True):
            write_shard(tmp_path / "in" / folder / f"{split}-00001-of-00001", [example])
        (tmp_path / "in" / folder / "labels-raw.csv").write_text(f"0,{raw}\n")
        (tmp_path / "in" / folder / "sources.csv").write_text(f"5,Lab {folder}\n")
    paths = [str(tmp_path / "in" / folder) for folder in "ab"]

    def run(scheme):
        return ingest(paths, str(tmp_path / "out"), str(tmp_path / "bad"), IngestOptions(label_scheme=scheme))

    # A number says not which of the two labels it is.
    with pytest.raises(InputError, match=r"^0 is 'apple' in \S+/a/labels-raw\.csv and 'good' in \S+/b/labels-raw\.csv"):
        run(LabelScheme("raw", ("apple", "good"), table={"0": "apple"}))
    assert run(LabelScheme("classes", ("apple", "good")))["written"] == 4
    written = [*records(tmp_path / "out", "train"), *records(tmp_path / "out", "eval")]
    names = (contract.IMAGE_ID, contract.LABEL_TEXT, contract.INSTITUTION)
    assert sorted(tuple(value(example, name) for name in names) for example in written) == [
        (0, b"apple", b"Lab a"),
        (1, b"apple", b"Lab a"),
        (2, b"good", b"Lab b"),
        (3, b"good", b"Lab b"),
    ]


def test_the_limit_counts_what_is_wanted_and_names_labels_without_an_entry(drops):
    folder, _ = drops
    options = IngestOptions(label_scheme=SCHEME, max_quarantined=0.25)
    with pytest.raises(InputError, match=r"6 of 21 records .*; raw label 4 \(plates\) has no entry: 5; see") as error:
        ingest([str(folder / "in")], str(folder / "out"), str(folder / "bad"), options)
    assert "\n" not in str(error.value)


def test_a_scheme_that_uses_names_needs_a_table_of_them(drops):
    folder, _ = drops
    (folder / "in" / "labels-raw.csv").unlink()
    named = LabelScheme("mine", ("Hit", "Miss"), table={"needles": "Hit"})
    with pytest.raises(InputError, match=r"'mine' goes by the names of raw labels, and there is no labels-raw\.csv"):
        ingest([str(folder / "in")], str(folder / "out"), str(folder / "bad"), IngestOptions(label_scheme=named))
    numbered = LabelScheme("mine", ("Hit", "Miss"), table={"1": "Hit"}, others="leave_out")
    options = IngestOptions(label_scheme=numbered)
    summary = ingest([str(folder / "in")], str(folder / "out"), str(folder / "bad"), options)
    assert (summary["written"], summary["left_out"]) == (5, 21)


def test_classes_can_be_made_from_marcos_four(make_example):
    scheme = LabelScheme("classes", ("Crystals", "Rest"), source="class", table={"Clear": "Rest", "Other": None})
    verdicts = [
        check_record(make_example(number).SerializeToString(), Tables(), IngestOptions(label_scheme=scheme))
        for number in range(4)
    ]
    assert [type(verdict) for verdict in verdicts] == [Accepted, Accepted, LeftOut, Rejected]
    assert value(contract.parse_example(verdicts[0].data), contract.LABEL) == 1
    assert value(contract.parse_example(verdicts[1].data), contract.LABEL) == 0
    assert (verdicts[2].label, verdicts[3].reason) == ("Other", contract.UNMAPPED_LABEL)
    wrong = make_example(0, label_text="Crystals").SerializeToString()
    assert check_record(wrong, Tables(), IngestOptions(label_scheme=scheme)).reason == contract.LABEL_TEXT_MISMATCH


def test_a_record_that_has_its_class_already_keeps_its_bytes(make_example):
    data = make_example(1).SerializeToString()
    verdict = check_record(data, Tables(), IngestOptions())
    assert verdict.data == data and not verdict.relabelled
    shouted = make_example(1, label_text="CRYSTALS").SerializeToString()
    verdict = check_record(shouted, Tables(), IngestOptions())
    assert value(contract.parse_example(verdict.data), contract.LABEL_TEXT) == b"Crystals"


def test_a_relabelled_record_is_read_once_and_can_be_restored(make_example):
    example = make_example(7)
    changed = relabel(example.SerializeToString(), 9, "Skin")
    features = contract.parse_example(changed).features.feature
    assert list(features[contract.LABEL].int64_list.value) == [9]
    assert list(features[contract.LABEL_TEXT].bytes_list.value) == [b"Skin"]
    assert contract.parse_example(restore_label(changed)) == example
