"""Exported images are those of the records, and an import of them makes the same set."""

import csv
import io

import hypothesis
import pytest
from hypothesis import strategies
from PIL import Image
from typer.testing import CliRunner

from marco_data import contract, exporting, importing, label_tables, name_tables, shards, tfrecord
from marco_model import errors
from marco_model.labels import CLASSES
from pipelines import cli

RUN = CliRunner()


def encoded(number, kind="JPEG"):
    buffer, image = io.BytesIO(), Image.new("RGB", (30, 20))
    image.putpixel((number % 30, number // 30 % 20), (255, 0, 0))
    image.save(buffer, kind)
    return buffer.getvalue()


def example(number, filename=None, **changes):
    values = {
        "encoded": encoded(number),
        "image_format": "JPEG",
        "height": 20,
        "width": 30,
        "filename": filename or f"03c3_A1_ImagerDefaults_{number}.jpg",
        "image_id": number,
        "label": number % 4,
        "label_text": CLASSES[number % 4],
        "label_raw": number % 7,
        "source": number % 2,
    }
    return contract.build_example(**values | changes)


def write(folder, **examples):
    """Writes a shard of each split; `train=[example, …]`."""
    folder.mkdir(parents=True)
    name_tables.write_tables(folder, raw_labels={number: f"raw {number}" for number in range(7)})
    for split, records in examples.items():
        shards.write_shards(folder, split, (each.SerializeToString() for each in records), 4)
    return str(folder)


def read(folder):
    """Returns the features of each record by split and id, and the tables beside the shards."""
    features = {}
    for shard in shards.find_shards([str(folder)]):
        for _, record in shards.read_examples(shard.path):
            values = {name: contract.feature_values(record[name])[1][0] for name in record}
            features[shards.split_of(shard.name), values[contract.IMAGE_ID]] = values
    return features, {path.name: path.read_text() for path in folder.glob("*.csv")}


def rows(folder):
    with (folder / exporting.LABELS_FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def import_again(exported, output, **options):
    return importing.import_images(label_tables.from_csv(exported / "labels.csv", **options), output)


@pytest.mark.parametrize("raw_labels", [False, True])
def test_an_import_of_an_export_is_the_same_set(tmp_path, raw_labels):
    (tmp_path / "drops").mkdir()
    lines = ["filename,label"]
    for number in range(40):
        path = tmp_path / "drops" / f"plate{number % 5}" / f"A{number // 5 + 1:02}.{'png' if number % 3 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (number, 9, 9)).save(path)
        name = f"kind {number % 3}/{number % 2}" if raw_labels else CLASSES[number % 4]
        lines.append(f"{path.relative_to(tmp_path / 'drops')},{name}")
    (tmp_path / "drops" / "labels.csv").write_text("\n".join(lines))
    table = label_tables.from_csv(tmp_path / "drops" / "labels.csv", institution="My lab", raw_labels=raw_labels)
    importing.import_images(table, tmp_path / "first", shard_images=8)
    done = exporting.export_images([str(tmp_path / "first")], tmp_path / "out")
    assert (sum(done.by_class.values()), done.repeated, done.failures) == (40, 0, [])
    table = label_tables.from_csv(tmp_path / "out" / "labels.csv", raw_labels=raw_labels, keep_splits=True)
    importing.import_images(table, tmp_path / "second", shard_images=8)
    first, second = tmp_path / "first", tmp_path / "second"
    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def test_ids_labels_sources_splits_and_bytes_are_kept(tmp_path):
    records = [example(number) for number in range(1, 13)]
    source = write(tmp_path / "set", train=records[:8], test=records[8:])
    exporting.export_images([source], tmp_path / "out")
    listed = rows(tmp_path / "out")
    assert [row["split"] for row in listed] == ["eval"] * 4 + ["train"] * 8
    for row in listed:
        assert (tmp_path / "out" / row["image_path"]).read_bytes() == encoded(int(row["image_id"]))
        assert row["image_path"].startswith(f"{row['label_text']}/03c3_A1_ImagerDefaults_")
    import_again(tmp_path / "out", tmp_path / "again", keep_splits=True)
    before, tables = read(tmp_path / "set")
    after, new_tables = read(tmp_path / "again")
    # MARCO's own records have no plate; an import reads it from the file's name.
    assert {values.pop(contract.PLATE) for values in after.values()} == {b"03c3"}
    assert after == before
    assert new_tables == {**tables, "labels-norm.csv": "id,name\n0,Clear\n1,Crystals\n2,Other\n3,Precipitate\n"}


def test_sets_whose_numbers_differ_become_one(tmp_path):
    for number, (folder, source, raw) in enumerate((("a", "Lab a", "apple"), ("b", "Lab b", "good"))):
        write(tmp_path / "sets" / folder, train=[example(number, source=5, label_raw=0), example(9, label_raw=1)])
        name_tables.write_tables(tmp_path / "sets" / folder, {1: "CSIRO", 5: source}, raw_labels={0: raw, 1: "bad"})
    extra = [example(12, source=5, label_raw=2), example(13, source=5, label_raw=0)]
    write(tmp_path / "sets" / "a" / "more", train=extra[:1])
    write(tmp_path / "sets" / "c", train=extra[1:])
    for table in ("sources.csv", "labels-raw.csv"):
        (tmp_path / "sets" / "a" / "more" / table).unlink()
    (tmp_path / "sets" / "c" / "labels-raw.csv").unlink()
    name_tables.write_tables(tmp_path / "sets" / "c", {5: "Lab b"})
    exporting.export_images([str(tmp_path / "sets")], tmp_path / "out")
    numbers = {row["image_id"]: (row["source"], row["label_raw"]) for row in rows(tmp_path / "out")}
    # The raw labels 2 of the first set and 0 of the third have no name.
    assert numbers == {
        "0": ("5", "0"), "9": ("1", "1"), "12": ("5", "2"), "1": ("6", "3"), "13": ("6", "4"),
    }  # fmt: skip
    assert name_tables.read_table(tmp_path / "out" / "sources.csv") == {1: "CSIRO", 5: "Lab a", 6: "Lab b"}
    assert name_tables.read_table(tmp_path / "out" / "labels-raw.csv") == {
        0: "apple",
        1: "bad",
        3: "good",
        4: "label 0",
    }


def test_without_keep_splits_an_import_draws_its_own(tmp_path):
    source = write(tmp_path / "set", train=[example(number) for number in range(40)])
    exporting.export_images([source], tmp_path / "out")
    done = import_again(tmp_path / "out", tmp_path / "again")
    assert min(done.written.values()) > 0
    kept = import_again(tmp_path / "out", tmp_path / "kept", keep_splits=True)
    assert kept.written == {"train": 40, "validation": 0, "eval": 0}
    text = (tmp_path / "out" / "labels.csv").read_text().replace(",train\n", ",trian\n", 1)
    (tmp_path / "out" / "labels.csv").write_text(text)
    with pytest.raises(errors.InputError, match=r"labels\.csv, line 2: split is 'trian'"):
        label_tables.from_csv(tmp_path / "out" / "labels.csv", keep_splits=True)
    (tmp_path / "out" / "labels.csv").write_text("filename,label\na.jpg,Clear\n")
    with pytest.raises(errors.InputError, match=r"labels\.csv has no column split .*leave --keep-splits out"):
        label_tables.from_csv(tmp_path / "out" / "labels.csv", keep_splits=True)


def test_splits_classes_and_institutions_are_chosen(tmp_path):
    records = [example(number) for number in range(1, 13)]
    source = write(tmp_path / "set", train=records[:8], test=records[8:])
    choices = {
        "split": exporting.Choice(splits=["eval"]),
        "class": exporting.Choice(classes=["crystals", "Other"]),
        "institution": exporting.Choice(institutions=["bristol-myers squibb"]),
        "all": exporting.Choice(["train"], ["Clear"], ["Bristol-Myers Squibb"]),
    }
    exported = {}
    for name, choice in choices.items():
        exporting.export_images([source], tmp_path / name, choice)
        exported[name] = sorted(int(row["image_id"]) for row in rows(tmp_path / name))
    assert exported == {
        "split": [9, 10, 11, 12],
        "class": [1, 2, 5, 6, 9, 10],
        "institution": [2, 4, 6, 8, 10, 12],
        "all": [4, 8],
    }
    with pytest.raises(errors.InputError, match=r"no image to export.*classes: Clear, Crystals, Other, Precipitate"):
        exporting.export_images([source], tmp_path / "none", exporting.Choice(classes=["Crystal"]))
    with pytest.raises(errors.InputError, match="no split 'test'"):
        exporting.export_images([source], tmp_path / "none", exporting.Choice(splits=["test"]))
    assert not (tmp_path / "none").exists()


def test_damaged_records_are_listed_and_the_rest_is_exported(tmp_path):
    folder = tmp_path / "set"
    source = write(folder, train=[example(1), example(2)])
    good = tfrecord.frame(example(3).SerializeToString())
    nameless = example(4)
    del nameless.features.feature[contract.IMAGE_ID]
    bad = [
        good[:40] + bytes([good[40] ^ 1]) + good[41:],
        tfrecord.frame(b"\xff no example"),
        tfrecord.frame(nameless.SerializeToString()),
        tfrecord.frame(example(5, encoded=b"raw pixels").SerializeToString()),
        good,
        good[:60],
    ]
    (folder / "train-00002-of-00002").write_bytes(b"".join(bad))
    done = exporting.export_images([source], tmp_path / "out")
    assert sorted(int(row["image_id"]) for row in rows(tmp_path / "out")) == [1, 2, 3]
    listed = (tmp_path / "out" / exporting.ERRORS_FILE).read_text().splitlines()
    assert len(done.failures) == 5
    assert [line.split(",")[1] for line in listed] == ["index", "0", "1", "2", "3", "5"]
    assert "not a JPEG or PNG: starts with 72 61 77" in listed[4]


def test_of_copies_the_one_that_is_evaluated_on_is_exported(tmp_path):
    source = write(tmp_path / "set", train=[example(1), example(2)], test=[example(1)])
    done = exporting.export_images([source], tmp_path / "out")
    assert done.repeated == 1
    assert {row["image_id"]: row["split"] for row in rows(tmp_path / "out")} == {"1": "eval", "2": "train"}


NAMES = ["../../up.jpg", "/etc/passwd", "C:\\a\\b.jpg", "con.jpg", ".hidden.jpg", "a:b?.jpg", "no ending", "x" * 300]


def test_names_that_a_file_system_refuses_are_changed(tmp_path):
    records = [example(4 * number, name) for number, name in enumerate([*NAMES, "A.jpg", "a.JPG", "a.jpg"])]
    source = write(tmp_path / "set", train=records)
    exporting.export_images([source], tmp_path / "out")
    paths = {int(row["image_id"]): row["image_path"] for row in rows(tmp_path / "out")}
    assert [paths[4 * number] for number in range(11)] == [
        "Clear/up.jpg",
        "Clear/passwd.jpg",
        "Clear/b.jpg",
        "Clear/_con.jpg",
        "Clear/_.hidden.jpg",
        "Clear/a_b_.jpg",
        "Clear/no ending.jpg",
        f"Clear/{'x' * 120}.jpg",
        "Clear/A.jpg",
        "Clear/36/a.JPG",
        "Clear/40/a.jpg",
    ]
    done = import_again(tmp_path / "out", tmp_path / "again")
    assert sum(done.written.values()) == 11


@hypothesis.given(strategies.text(max_size=200))
def test_a_safe_name_is_one_visible_name(name):
    safe = exporting.safe_name(name, "7")
    assert safe
    assert not set(safe) & set('<>:"/\\|?*')
    assert safe.isprintable()
    assert not safe.startswith((".", " "))
    assert not safe.endswith((".", " "))
    assert len(safe.encode()) <= 130
    assert exporting.safe_name(safe, "7") == safe


def test_the_command_counts_and_says_what_is_left_out(tmp_path):
    source = write(tmp_path / "set", train=[example(number) for number in range(1, 5)])
    arguments = ["data", "export", "--output", str(tmp_path / "out"), "--class", "Crystals", "--class", "Other", source]
    result = RUN.invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert f"2 images in {tmp_path / 'out'} (Crystals 1, Other 1)" in result.stdout
    again = RUN.invoke(cli.app, arguments)
    assert isinstance(again.exception, errors.InputError)
    assert "is not empty" in str(again.exception)
    (tmp_path / "set" / "train-00002-of-00002").write_bytes(tfrecord.frame(b"\xff no example"))
    result = RUN.invoke(cli.app, ["data", "export", "--output", str(tmp_path / "more"), source])
    assert result.exit_code == 1
    assert "1 left out in all, listed in" in result.output
    result = RUN.invoke(cli.app, ["data", "import", "--output", "x", "--keep-splits", str(tmp_path / "out")])
    assert "give --csv labels.csv too" in str(result.exception)
