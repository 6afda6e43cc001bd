"""Counts of raw shards, compared with their construction; the sheet is checked pixel by pixel."""

import io
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from marco_data import contract
from marco_data.contract import REASONS
from marco_data.inspection import CELL, Sample, contact_sheet, inspect_shards, read_quarantine
from marco_data.name_tables import write_tables
from marco_data.tfrecord import frame
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from pipelines.commands import data


def jpeg(shade, width=30):
    buffer = io.BytesIO()
    Image.new("RGB", (width, 20), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def example(number, source=1):
    width = 30 + 10 * (number % 2)
    return contract.build_example(
        encoded=jpeg(number, width),
        image_format="JPEG",
        height=20,
        width=width,
        filename=f"03c3_A1_ImagerDefaults_{number}.jpg" if number % 3 else f"{number}.png",
        image_id=number,
        label=number % 4,
        label_text=CLASSES[number % 4],
        label_raw=0,
        source=source,
    )


@pytest.fixture
def shards(tmp_path):
    """Twelve training and four test images of CSIRO, six of the former from the Minstrel; two damaged records."""
    folder = tmp_path / "set"
    folder.mkdir()
    write_tables(folder)
    train = [frame(example(number).SerializeToString()) for number in range(12)]
    damaged_record = train[0][:40] + bytes([train[0][40] ^ 1]) + train[0][41:]
    (folder / "train-00001-of-00001").write_bytes(b"".join([*train, damaged_record, frame(b"\xff no example")]))
    test = [frame(example(number).SerializeToString()) for number in range(100, 104)]
    (folder / "test-00001-of-00001").write_bytes(b"".join(test))
    return folder


def test_counts_by_class_institution_imager_and_size(shards):
    found = inspect_shards([str(shards)])
    assert (found.records, found.shards, found.unreadable) == (16, 2, 2)
    assert found.classes == {(split, name): {"train": 3, "eval": 1}[split] for split in ("train", "eval")
                             for name in CLASSES}  # fmt: skip
    assert found.imagers == {
        ("train", "CSIRO", "Formulatrix Rock Imager"): 8,
        ("train", "CSIRO", "Rigaku Minstrel"): 4,
        ("eval", "CSIRO", "Formulatrix Rock Imager"): 3,
        ("eval", "CSIRO", "Rigaku Minstrel"): 1,
    }
    assert found.sizes == {("train", "30×20"): 6, ("train", "40×20"): 6, ("eval", "30×20"): 2, ("eval", "40×20"): 2}


def test_raw_labels_are_counted_by_number_name_and_class(shards):
    (shards / "labels-raw.csv").write_text("id,name\n0,seen\n")
    assert inspect_shards([str(shards)]).raw_labels == {
        (split, "0", "seen", name): {"train": 3, "eval": 1}[split] for split in ("train", "eval") for name in CLASSES
    }


def test_each_set_below_a_folder_is_counted_by_its_own_tables(tmp_path):
    for folder, source, label in (("a", "Lab a", "apple"), ("b", "Lab b", "good")):
        (tmp_path / folder).mkdir()
        write_tables(tmp_path / folder, {1: source}, raw_labels={0: label})
        (tmp_path / folder / "train-1-of-1").write_bytes(frame(example(0, 1).SerializeToString()))
    found = inspect_shards([str(tmp_path)])
    assert found.imagers == {("train", "Lab a", "unknown"): 1, ("train", "Lab b", "unknown"): 1}
    assert found.raw_labels == {("train", "0", "apple", "Clear"): 1, ("train", "0", "good", "Clear"): 1}


def test_institution_and_imager_of_an_ingested_record_win(shards):
    ingested = example(1)
    ingested.features.feature[contract.INSTITUTION].bytes_list.value.append(b"Merck")
    ingested.features.feature[contract.IMAGER].bytes_list.value.append(b"a new one")
    for shard in shards.glob("*-of-*"):
        shard.unlink()
    (shards / "Split-eval").mkdir()
    (shards / "Split-eval" / "data_tfrecord-00000-of-00001").write_bytes(frame(ingested.SerializeToString()))
    assert inspect_shards([str(shards)]).imagers == {("eval", "Merck", "a new one"): 1}


def test_samples_do_not_depend_on_the_order(shards):
    drawn = inspect_shards([str(shards)], samples=2).samples
    assert {name: len(samples) for name, samples in drawn.items()} == dict.fromkeys(CLASSES, 2)
    (shards / "train-00001-of-00001").rename(shards / "validation-00001-of-00001")
    again = inspect_shards([str(shards)], samples=2).samples
    assert drawn == again


def test_the_sheet_has_one_row_per_class_in_class_order():
    shades = {"Other": 200, "Clear": 30, "Crystals": 90}
    sheet = contact_sheet({name: [Sample(jpeg(shade), name, "CSIRO", "a.jpg")] for name, shade in shades.items()})
    pixels = np.asarray(sheet)
    rows = (pixels.shape[0] - 8) // 3
    for row, name in enumerate(("Clear", "Crystals", "Other")):
        cell = pixels[8 + row * rows :][:CELL, 8 : 8 + CELL]
        assert (np.abs(cell.astype(int) - shades[name]) < 3).all(-1).sum() == 30 * 20


def test_an_image_that_does_not_decode_gets_a_cell_with_a_note():
    empty = contact_sheet({"Clear": [Sample(b"no image", "Clear", "CSIRO", "a.jpg")]})
    assert len(empty.getcolors(100_000)) > 2


def test_a_quarantine_is_grouped_by_reason(tmp_path):
    (tmp_path / "quarantine").mkdir()
    lines = ["shard,offset,index,image_id,reason,detail", "a,0,0,,bad_checksum,x", "a,9,1,,duplicate_id,y"]
    (tmp_path / "quarantine" / "quarantine.csv").write_text("\n".join([*lines, "a,12,2,7,duplicate_id,z"]) + "\n")
    by_reason = read_quarantine(str(tmp_path))
    assert [(reason, [row["index"] for row in rows]) for reason, rows in by_reason.items()] == [
        ("duplicate_id", ["1", "2"]),
        ("bad_checksum", ["0"]),
    ]
    assert read_quarantine(str(tmp_path / "quarantine")) == by_reason
    assert read_quarantine(str(tmp_path.parent / "none")) is None


def test_every_reason_has_one_line():
    assert all(text and "\n" not in text for text in REASONS.values())


def test_the_command_prints_tables_writes_the_sheet_and_explains_the_quarantine(shards, tmp_path):
    quarantine = "shard,offset,index,image_id,reason,detail\ntrain-1,0,3,,too_many_pixels,60000x60000 in the header\n"
    (shards / "quarantine.csv").write_text(quarantine)
    command = [sys.executable, "-m", "pipelines.cli", "data", "inspect", "--contact-sheet", str(tmp_path / "s.png")]
    done = subprocess.run([*command, str(shards)], capture_output=True, text=True, env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "16 images in 2 shards" in done.stdout
    assert "2 records cannot be read" in done.stdout
    assert REASONS["too_many_pixels"] in done.stdout and "60000x60000" in done.stdout
    assert Image.open(tmp_path / "s.png").width > 3 * CELL


def test_a_contact_sheet_does_not_take_a_shard_s_place(shards, tmp_path):
    shard = next(path for path in shards.rglob("*-of-*"))
    before = shard.read_bytes()
    (tmp_path / "s.png").symlink_to(shard)
    with pytest.raises(InputError, match=r"--contact-sheet .*s.png is an input"):
        data.inspect([str(shards)], tmp_path / "s.png")
    assert shard.read_bytes() == before


def test_a_contact_sheet_takes_the_place_of_an_earlier_one_alone(shards, tmp_path):
    photograph, sheet = tmp_path / "photograph.png", tmp_path / "sheet.png"
    Image.new("RGB", (30, 20)).save(photograph)
    before = photograph.read_bytes()
    command = [sys.executable, "-m", "pipelines.cli", "data", "inspect", str(shards), "--contact-sheet"]
    for path, message in ((photograph, "exists and is no contact sheet"), (tmp_path / "a.jpeg", "would be a PNG")):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True)
        assert message in done.stderr and done.returncode == 2
    assert photograph.read_bytes() == before
    for _ in range(2):
        assert subprocess.run([*command, str(sheet)], capture_output=True).returncode == 0


def test_the_documentation_lists_the_reasons_as_they_are():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in REASONS.items()) in text


@pytest.mark.parametrize("text", ["", "shard,index,detail\na,0,x\n"])
def test_a_table_of_anything_else_is_no_quarantine(tmp_path, text):
    (tmp_path / "quarantine.csv").write_text(text)
    with pytest.raises(
        InputError, match=r"quarantine.csv has no column (shard|reason); give what `marco data ingest` wrote"
    ):
        read_quarantine(str(tmp_path))
