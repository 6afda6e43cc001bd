"""Your own images become shards; their content is read back with TensorFlow's own reader."""

import collections
import csv
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from marco_data import contract
from marco_data.importing import import_images
from marco_data.label_tables import from_csv, from_folder
from marco_data.name_tables import parse_table
from marco_model.errors import InputError
from marco_model.labels import CLASSES

PLATES = [f"{plate:04x}_{well}_ImagerDefaults_1" for plate in range(6) for well in ("A1", "B12")]
ENDINGS = (".jpg", ".PNG", ".tif", ".bmp")


def draw(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def plates(tmp_path):
    """Twelve images of six plates in one folder per class: name → (pixels, class)."""
    made = {}
    for number, stem in enumerate(PLATES):
        name = stem + ENDINGS[number % 4]
        folder = CLASSES[number % 4].upper() if number % 2 else CLASSES[number % 4]
        made[name] = draw(tmp_path / "drops" / folder / name, number), number % 4
    return made


def read(folder):
    """Returns the examples by shard name."""
    shards = sorted(path for path in folder.iterdir() if "-of-" in path.name)
    return {
        shard.name: [tf.train.Example.FromString(data.numpy()) for data in tf.data.TFRecordDataset(str(shard))]
        for shard in shards
    }


def value(example, name):
    feature = example.features.feature[name]
    return (feature.bytes_list.value or feature.int64_list.value)[0]


def test_a_folder_a_class_becomes_shards_that_keep_plates_together(tmp_path, plates):
    out = tmp_path / "set"
    done = import_images(from_folder(tmp_path / "drops", "CSIRO"), out, eval_share=0.4, shard_images=3)
    assert not done.errors
    assert not any("eval split: drawn image by image" in warning for warning in done.warnings)
    shards = read(out)
    examples = [example for each in shards.values() for example in each]
    assert {value(example, contract.FILENAME).decode() for example in examples} == set(plates)
    for example in examples:
        pixels, label = plates[value(example, contract.FILENAME).decode()]
        assert value(example, contract.LABEL) == label
        assert value(example, contract.LABEL_TEXT).decode() == CLASSES[label]
        assert (value(example, contract.HEIGHT), value(example, contract.WIDTH)) == (20, 30)
        assert parse_table((out / "sources.csv").read_text(), "table")[value(example, contract.SOURCE)] == "CSIRO"
        if value(example, contract.FORMAT) == b"PNG":
            np.testing.assert_array_equal(tf.io.decode_png(value(example, contract.ENCODED)), pixels)
    assert len({value(example, contract.IMAGE_ID) for example in examples}) == 12
    plate_of = {
        split: {
            value(e, contract.FILENAME)[:4] for name, each in shards.items() if name.startswith(split) for e in each
        }
        for split in ("train", "validation", "test")
    }
    assert not (plate_of["train"] | plate_of["validation"]) & plate_of["test"]
    for split in ("train", "validation", "test"):
        names = [name for name in shards if name.startswith(split)]
        total = len(names)
        assert names == [f"{split}-{number:05d}-of-{total:05d}" for number in range(1, total + 1)]
        assert all(len(shards[name]) == 3 for name in names[:-1])
    assert (out / "labels-norm.csv").read_text() == "id,name\n0,Clear\n1,Crystals\n2,Other\n3,Precipitate\n"


def test_class_folders_are_mixed_in_the_shards(tmp_path):
    for number in range(120):
        draw(tmp_path / "drops" / CLASSES[number // 30] / f"{number}.png", number)
    import_images(from_folder(tmp_path / "drops"), tmp_path / "set", eval_share=0.2, shard_images=24)
    for name, examples in read(tmp_path / "set").items():
        counts = np.bincount([value(example, contract.LABEL) for example in examples], minlength=4)
        assert counts.min() > 0, (name, counts)


def test_the_same_images_get_the_same_shards_again(tmp_path, plates):
    for name in ("one", "two"):
        import_images(from_folder(tmp_path / "drops"), tmp_path / name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()
    }


def test_the_order_of_a_csv_changes_nothing(tmp_path):
    lines = []
    for number in range(120):
        path = f"{CLASSES[number // 30]}/{number}.png"
        draw(tmp_path / path, number)
        lines.append(f"{path},{CLASSES[number // 30]}")
    for name in ("sorted", "shuffled"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["filename,label", *lines]))
        import_images(from_csv(tmp_path / f"{name}.csv"), tmp_path / name, shard_images=40)
        np.random.default_rng(0).shuffle(lines)
    assert {path.name: path.read_bytes() for path in (tmp_path / "sorted").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "shuffled").iterdir()
    }


def test_a_simple_csv_names_files_and_classes(tmp_path, plates):
    lines = [f"drops/{folder.name}/{path.name},{folder.name.lower()}"
             for folder in sorted((tmp_path / "drops").iterdir()) for path in sorted(folder.iterdir())]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\ufeffFilename,Label\r\n" + "\r\n".join(lines) + "\r\n\r\n")
    import_images(from_csv(tmp_path / "labels.csv"), tmp_path / "set", eval_share=0.4)
    found = [example for each in read(tmp_path / "set").values() for example in each]
    assert {value(example, contract.FILENAME).decode(): value(example, contract.LABEL) for example in found} == {
        name: label for name, (_, label) in plates.items()
    }


def test_terfs_csv_keeps_ids_raw_labels_and_sources(tmp_path):
    for number in range(4):
        draw(tmp_path / f"{number}.jpg", number)
    (tmp_path / "labels.csv").write_text(
        "image_path,image_id,label_id,label_text,label_raw,source\n"
        "0.jpg,70,0,Clear,clear drop,Merck\n1.jpg,71,1,Crystals,needles,CSIRO\n"
        "2.jpg,72,2,Other,clear drop,Elsewhere\n3.jpg,73,3,Precipitate,skin,Merck\n"
    )
    import_images(from_csv(tmp_path / "labels.csv"), tmp_path / "set")
    found = {value(e, contract.IMAGE_ID): e for each in read(tmp_path / "set").values() for e in each}
    assert sorted(found) == [70, 71, 72, 73]
    sources = parse_table((tmp_path / "set" / "sources.csv").read_text(), "table")
    assert [sources[value(found[number], contract.SOURCE)] for number in range(70, 74)] == [
        "Merck", "CSIRO", "Elsewhere", "Merck"
    ]  # fmt: skip
    raw = parse_table((tmp_path / "set" / "labels-raw.csv").read_text(), "table")
    assert [raw[value(found[number], contract.LABEL_RAW)] for number in range(70, 74)] == [
        "clear drop", "needles", "clear drop", "skin"
    ]  # fmt: skip


def test_your_own_labels_become_raw_labels(tmp_path):
    for number, folder in enumerate(("Light precipitate", "needles", "needles", "7")):
        draw(tmp_path / "drops" / folder / f"{number}.jpg", number)
    names = ["Light precipitate", "needles", "needles", "7"]
    lines = [f"drops/{name}/{number}.jpg,{name}" for number, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("filename,label\n" + "\n".join(lines) + "\n")
    tables = {
        "folder": from_folder(tmp_path / "drops", raw_labels=True),
        "csv": from_csv(tmp_path / "labels.csv", raw_labels=True),
    }
    for way, table in tables.items():
        import_images(table, tmp_path / way)
        named = parse_table((tmp_path / way / "labels-raw.csv").read_text(), "table")
        assert sorted(named.values()) == ["Light precipitate", "label 7", "needles"]
        assert named == parse_table((tmp_path / way / "labels-norm.csv").read_text(), "table")
        for example in (example for each in read(tmp_path / way).values() for example in each):
            number = int(value(example, contract.FILENAME).decode().split(".")[0])
            raw = value(example, contract.LABEL_RAW)
            assert named[raw] == names[number].replace("7", "label 7")
            assert (value(example, contract.LABEL), value(example, contract.LABEL_TEXT).decode()) == (raw, named[raw])


def test_raw_labels_that_are_numbers_keep_them(tmp_path):
    for number in range(2):
        draw(tmp_path / f"{number}.jpg", number)
    (tmp_path / "labels.csv").write_text("filename,label\n0.jpg,12\n1.jpg,30\n")
    table = from_csv(tmp_path / "labels.csv", raw_labels=True)
    assert [image.label_raw for image in table.images] == [12, 30]
    assert table.raw_labels == {12: "label 12", 30: "label 30"}


def test_terfs_raw_labels_are_read_without_its_classes(tmp_path):
    draw(tmp_path / "0.jpg", 0)
    header = "image_path,image_id,label_id,label_text,label_raw,source\n"
    (tmp_path / "labels.csv").write_text(header + "0.jpg,70,9,Whatever,needles,Merck\n")
    (image,) = from_csv(tmp_path / "labels.csv", raw_labels=True).images
    assert (image.label, image.label_raw) == (0, 0)
    with pytest.raises(InputError, match="class 'Whatever' is unknown"):
        from_csv(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text(header + "0.jpg,70,1,Crystals,,Merck\n")
    assert from_csv(tmp_path / "labels.csv").raw_labels == {0: "unknown"}
    with pytest.raises(InputError, match="line 2: the label is empty"):
        from_csv(tmp_path / "labels.csv", raw_labels=True)


def test_numbered_sources_take_their_names_from_sources_csv(tmp_path):
    draw(tmp_path / "0.jpg", 0)
    draw(tmp_path / "1.jpg", 1)
    header = "image_path,image_id,label_id,label_text,label_raw,source\n"
    (tmp_path / "labels.csv").write_text(header + "0.jpg,1,0,Clear,12,2\n1.jpg,2,1,Crystals,30,9\n")
    (tmp_path / "sources.csv").write_text("id,name\n2,Here\n")
    table = from_csv(tmp_path / "labels.csv")
    assert table.sources == {2: "Here", 9: "source 9"}
    assert [image.label_raw for image in table.images] == [12, 30]


def test_few_plates_come_close_to_the_share_that_was_asked(tmp_path):
    for number in range(60):
        plate, well = divmod(number, 10)
        draw(tmp_path / "drops" / "Clear" / f"{plate:04x}_A{well + 1}_ImagerDefaults_1.jpg", number)
    done = import_images(from_folder(tmp_path / "drops"), tmp_path / "set", eval_share=0.2)
    assert done.written == {"train": 40, "validation": 10, "eval": 10}
    assert not any("image by image" in warning for warning in done.warnings)


@pytest.mark.parametrize("count", [3, 5])
def test_few_images_of_one_plate_still_make_all_splits(tmp_path, count):
    for number in range(count):
        draw(tmp_path / "drops" / "Clear" / f"03c3_A{number + 1}_ImagerDefaults_1.jpg", number)
    done = import_images(from_folder(tmp_path / "drops"), tmp_path / "set", eval_share=0.1)
    assert done.written == {"train": count - 2, "validation": 1, "eval": 1}
    assert done.warnings[:2] == [
        f"too few plates, or too unlike ones, to hold out whole ones for the {split} split: drawn image by image"
        for split in ("eval", "validation")
    ]


def test_every_class_is_held_out_alike_and_folders_tell_plates(tmp_path):
    shares = {"Clear": 120, "Crystals": 40, "Precipitate": 240}
    for name, count in shares.items():
        for number in range(count):
            seed = 1000 * CLASSES.index(name) + number
            draw(tmp_path / "drops" / name / f"plate{number % 20}" / f"{name}{number}.png", seed)
    done = import_images(from_folder(tmp_path / "drops"), tmp_path / "set", eval_share=0.2)
    split = collections.defaultdict(set)
    counts = collections.Counter()
    for name, examples in read(tmp_path / "set").items():
        for example in examples:
            number = int(re.sub(r"\D", "", value(example, contract.FILENAME).decode().partition(".")[0]))
            split[number % 20].add(name.partition("-")[0])
            counts[name.partition("-")[0], CLASSES[value(example, contract.LABEL)]] += 1
    assert all(len(names) == 1 for names in split.values()), "plates stay together"
    for name, count in shares.items():
        assert abs(counts["test", name] / count - 0.2) <= 0.05
    assert done.warnings == [
        "few images to learn a class from in the train split: Other 0",
        "few images to choose the weights by in the validation split: Other 0",
        "few images to judge a class from in the eval split: Crystals 8, Other 0",
    ]


def test_plates_that_have_one_class_each_are_not_held_out_whole(tmp_path):
    """A plate of 40 clear drops, another of 40 with precipitate, 25 crystals without a plate, and a plate of 1."""
    kinds = {"Clear/plate1": 40, "Precipitate/plate2": 40, "Crystals": 25, "Crystals/plate3": 1}
    for place, (folder, count) in enumerate(kinds.items()):
        for number in range(count):
            draw(tmp_path / "drops" / folder / f"{folder.replace('/', '')}{number}.png", 1000 * place + number)
    done = import_images(from_folder(tmp_path / "drops"), tmp_path / "set", eval_share=0.4)
    counts = collections.Counter()
    for name, examples in read(tmp_path / "set").items():
        counts.update((name.partition("-")[0], CLASSES[value(example, contract.LABEL)]) for example in examples)
    for name, total in (("Clear", 40), ("Precipitate", 40), ("Crystals", 26)):
        assert abs(counts["test", name] - 0.4 * total) <= 2
    assert any("for the eval split: drawn image by image" in warning for warning in done.warnings)


def test_folders_of_a_csv_tell_plates(tmp_path):
    lines = ["filename,label"]
    for number in range(40):
        path = f"plate{number % 4}/A{number:02}.png"
        draw(tmp_path / path, number)
        lines.append(f"{path},{CLASSES[number % 3]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    table = from_csv(tmp_path / "labels.csv")
    assert {image.plate for image in table.images} == {"plate0", "plate1", "plate2", "plate3"}
    done = import_images(table, tmp_path / "set", eval_share=0.25)
    assert done.written == {"train": 20, "validation": 10, "eval": 10}
    for examples in read(tmp_path / "set").values():
        for example in examples:
            number = int(value(example, contract.FILENAME)[1:3])
            assert value(example, contract.PLATE).decode() == f"plate{number % 4}"


def test_names_say_where_the_images_lie(tmp_path):
    for number in range(24):
        draw(tmp_path / "drops" / CLASSES[number % 2] / f"shot{number}.b{number % 6}.png", number)
    table = from_folder(tmp_path / "drops", names=r"\.(?P<plate>b[0-9])\.png")
    assert {image.plate for image in table.images} == {f"b{number}" for number in range(6)}
    assert not any("have no plate" in warning for warning in import_images(table, tmp_path / "set").warnings)
    table = from_folder(tmp_path / "drops", names=r"\.(?P<plate>b[0-3])\.png")
    assert any("8 of 24 images have no plate" in text for text in import_images(table, tmp_path / "other").warnings)


def test_no_split_is_left_empty(tmp_path):
    for name in "ab":
        draw(tmp_path / "drops" / "Clear" / f"{name}.png", 0)
    with pytest.raises(InputError, match="there are only 2 images for three splits; add images"):
        import_images(from_folder(tmp_path / "drops"), tmp_path / "set")
    (tmp_path / "drops" / "Clear" / "c.png").write_text("not an image")
    with pytest.raises(InputError, match="split has none of 2 readable images; add images"):
        import_images(from_folder(tmp_path / "drops"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (1.2, 0.1)])
def test_shares_that_leave_nothing_are_refused(tmp_path, plates, shares):
    table = from_folder(tmp_path / "drops")
    with pytest.raises(InputError, match=rf"eval_share is {shares[0]} and validation_share {shares[1]}; give two"):
        import_images(table, tmp_path / "set", eval_share=shares[0], validation_share=shares[1])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("filename,label\na.jpg,Clear\nb.jpg,Crystal\n", "line 3: class 'Crystal' is unknown; expected one of Clear"),
        ("filename,label\na.jpg,Clear\nb.jpg\n", "line 3: 1 cells, the header has 2"),
        ("filename,label\na.jpg,Clear\na.jpg,Other\n", "line 3: 'a.jpg' or its id is on line 2 already"),
        ("name,class\na.jpg,Clear\n", "header 'name,class'; expected filename,label or image_path"),
        ("filename,label\n", "lists no images"),
        ("filename,label\na.jpg,Clear\n,Clear\n", "line 3: the file name is empty"),
        ("filename,label\na.jpg,0\n", "line 2: label '0' is a number; expected one of Clear, Crystals, Other, "),
        ("filename,label\na.jpg,4\n", "line 2: label '4' is a number"),
        ("filename,label\na.jpg,Clear\n./a.jpg,Clear\n", "line 3: 'a.jpg' or its id is on line 2 already"),
        ("image_path,image_id,label_id,label_text,label_raw,source\na.jpg,1,0,Crystals,0,0\n", "line 2: label_id 0"),
        ("image_path,image_id,label_id,label_text,label_raw,source\na.jpg,x,0,Clear,0,0\n", "line 2: image_id is 'x'"),
    ],
)
def test_a_table_that_cannot_be_understood_is_one_clear_line(tmp_path, text, problem):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError) as error:
        from_csv(tmp_path / "labels.csv")
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_all_unknown_labels_are_named_at_once(tmp_path):
    labels = ["Clear", "drp", "2", "", "drp", *(f"label {number}" for number in range(20))]
    (tmp_path / "labels.csv").write_text("filename,label\n" + "".join(f"{i}.jpg,{x}\n" for i, x in enumerate(labels)))
    with pytest.raises(InputError) as error:
        from_csv(tmp_path / "labels.csv")
    assert str(error.value).startswith(
        "labels.csv, line 3 and 1 more: class 'drp' is unknown; labels.csv, line 4: label '2' is a number; labels.csv, "
        "line 5: class '' is unknown; labels.csv, line 7: class 'label 0' is unknown; "
    )
    assert "'label 7'" not in str(error.value)
    assert str(error.value).endswith(
        "; 13 more labels like these; expected one of Clear, Crystals, Other, Precipitate, or labels of your own with "
        "--raw-labels"
    )


def test_an_unknown_class_folder_is_named(tmp_path):
    draw(tmp_path / "drops" / "Crystal" / "a.jpg", 0)
    with pytest.raises(InputError, match=r"drops/Crystal.*class 'Crystal' is unknown"):
        from_folder(tmp_path / "drops")


def test_a_folder_that_holds_something_is_left_alone(tmp_path, plates):
    with pytest.raises(InputError, match="not empty"):
        import_images(from_folder(tmp_path / "drops"), tmp_path / "drops")


def test_the_command_lists_unreadable_files_and_imports_the_rest(tmp_path, plates):
    jpeg = next((tmp_path / "drops").rglob("*.jpg"))
    cut = jpeg.parent / "cut.jpg"
    cut.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    (jpeg.parent / "text.png").write_text("no image")
    command = [sys.executable, "-m", "pipelines.cli", "data", "import", "--output", str(tmp_path / "set")]
    command += ["--validation-share", "0.3"]
    done = subprocess.run([*command, str(tmp_path / "drops")], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "12 images in" in done.stdout
    with (tmp_path / "set" / "import.errors.csv").open() as file:
        errors = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert set(errors) == {str(cut), str(jpeg.parent / "text.png")}
    assert all(errors.values())
    assert sum(map(len, read(tmp_path / "set").values())) == 12
    missing = subprocess.run([*command[:-3], str(tmp_path / "new")], capture_output=True, text=True)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)
    assert missing.stderr.startswith("error: nothing to import")
    folder = subprocess.run(
        [*command[:5], "--csv", str(tmp_path), "--output", str(tmp_path / "new")], capture_output=True, text=True
    )
    assert f"--csv {tmp_path} is a folder; leave --csv out if it has a folder for each class" in folder.stderr


def ids(folder):
    return {value(example, contract.IMAGE_ID) for each in read(folder).values() for example in each}


def draw_plate(folder, seed):
    for number in range(12):
        draw(folder / CLASSES[number % 4] / f"A{number:02}.png", 100 * seed + number)
    return folder


@pytest.mark.parametrize("institution", ["", "My lab"])
def test_sets_whose_file_names_repeat_have_ids_of_their_own(tmp_path, institution):
    for seed in (1, 2):
        folder = draw_plate(tmp_path / f"plate{seed}", seed)
        import_images(from_folder(folder, institution), tmp_path / f"set{seed}")
    first, second = ids(tmp_path / "set1"), ids(tmp_path / "set2")
    assert len(first) == len(second) == 12 and not first & second
    # Whole in a spreadsheet, which keeps 15 digits.
    assert all(int(f"{number:.14e}".replace(".", "").partition("e")[0].ljust(15, "0")) for number in first)
    assert all(0 <= number < 10**15 and int(float(f"{number:.14e}")) == number for number in first | second)


def test_an_id_goes_by_institution_name_and_image_alone(tmp_path):
    draw_plate(tmp_path / "drops", 1)
    import_images(from_folder(tmp_path / "drops", "lab"), tmp_path / "set")
    (tmp_path / "moved" / "deep").mkdir(parents=True)
    lines = ["filename,label"]
    for path in sorted((tmp_path / "drops").rglob("*.png")):
        path.rename(tmp_path / "moved" / "deep" / path.name)
        lines.append(f"deep/{path.name},{CLASSES[len(lines) % 4]}")
    (tmp_path / "moved" / "labels.csv").write_text("\n".join(lines))
    import_images(from_csv(tmp_path / "moved" / "labels.csv", institution="lab"), tmp_path / "again")
    assert ids(tmp_path / "again") == ids(tmp_path / "set")
    import_images(from_csv(tmp_path / "moved" / "labels.csv", institution="other"), tmp_path / "other")
    assert not ids(tmp_path / "other") & ids(tmp_path / "set")


def test_names_that_are_not_utf8_are_imported(tmp_path):
    folder = draw_plate(tmp_path / "drops", 1)
    try:
        (folder / "Clear" / "A00.png").rename(folder / "Clear" / os.fsdecode(b"Prot\xefne.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (folder / "Clear" / "A04.png").rename(folder / "Clear" / os.fsdecode(b"no\xefse.png"))
    (folder / "Clear" / os.fsdecode(b"no\xefse.png")).write_bytes(b"no image")
    (folder / "Clear" / "A08.png").rename(folder / "Clear" / os.fsdecode(b"plate\xef_A01.png"))
    done = import_images(from_folder(folder), tmp_path / "set")
    names = {value(example, contract.FILENAME).decode() for each in read(tmp_path / "set").values() for example in each}
    assert {r"Prot\xefne.png", r"plate\xef_A01.png"} < names and len(names) == 11
    assert [path for path, _ in done.errors] == [str(folder / "Clear" / r"no\xefse.png")]
    assert (tmp_path / "set" / "import.errors.csv").read_text().count("xefse") == 1


def test_class_folders_are_read_whole_and_what_is_passed_over_is_named(tmp_path):
    folder = draw_plate(tmp_path / "drops", 1)
    draw(folder / "top.jpg", 1)
    draw(folder / "Clear" / ".snapshot" / "A00.png", 2)
    draw(folder / "@eaDir" / "A00.png", 2)
    (folder / "Clear" / "scan.jp2").touch()
    draw(tmp_path / "store" / "linked.png", 3)
    (folder / "Crystals" / "batch2").symlink_to(tmp_path / "store")
    (folder / "Crystals" / "gone.png").symlink_to("nowhere.png")
    done = import_images(from_folder(folder), tmp_path / "set")
    names = {value(example, contract.FILENAME).decode() for each in read(tmp_path / "set").values() for example in each}
    assert names == {f"A{number:02}.png" for number in range(12)} | {"linked.png"}
    assert "passed over, beside the class folders and so without a label: 1 images" in done.warnings
    assert "Clear: passed over: 1 .jp2; left out, hidden or copies: .snapshot" in done.warnings
    assert done.errors == [
        (str(folder / "Crystals" / "gone.png"), "cannot be read: No such file or directory; it links to nowhere.png")
    ]


@pytest.mark.parametrize(
    ("encoding", "change"),
    [
        ("utf-8", lambda text: text),
        ("utf-8-sig", lambda text: "sep=;\n" + text.replace(",", ";")),
        ("utf-16", lambda text: text.replace(",", "\t")),
        ("utf-8", lambda text: text.replace("/", "\\")),
        ("utf-8", lambda text: text.replace("\n", ",,\n")),
        ("utf-8", lambda text: text.replace("\n", ",,\n").replace("label,,", "label")),
    ],
    ids=["plain", "Excel's sep", "Excel's Unicode text", "Windows paths", "empty columns", "empty cells"],
)
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, encoding, change):
    lines = ["filename,label"]
    for number in range(4):
        draw(tmp_path / "plate1" / f"Kühn {number}.png", number)
        lines.append(f"plate1/Kühn {number}.png,{CLASSES[number]}")
    (tmp_path / "labels.csv").write_bytes(change("\n".join(lines) + "\n").encode(encoding))
    table = from_csv(tmp_path / "labels.csv")
    assert [(image.path.name, image.label) for image in table.images] == [(f"Kühn {n}.png", n) for n in range(4)]
    assert all(image.path.is_file() and image.plate == "plate1" for image in table.images)


def test_a_csv_in_another_encoding_is_refused_with_the_fix(tmp_path):
    (tmp_path / "labels.csv").write_bytes("filename,label\nKühn.png,Clear\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"labels.csv' is not UTF-8 text; save it again, in Excel as `CSV UTF-8"):
        from_csv(tmp_path / "labels.csv")


def test_deep_images_are_imported_by_the_bits_of_their_camera(tmp_path):
    folder = draw_plate(tmp_path / "drops", 1)
    dark = np.arange(600, dtype=np.uint16).reshape(20, 30) * 3
    Image.fromarray(dark).save(folder / "Clear" / "dark.png")
    done = import_images(from_folder(folder), tmp_path / "set")
    ((path, reason),) = done.errors
    assert path.endswith("dark.png") and "--bits 12" in reason
    assert not import_images(from_folder(folder), tmp_path / "again", bits=12).errors
    (encoded,) = [
        value(example, contract.ENCODED)
        for each in read(tmp_path / "again").values()
        for example in each
        if value(example, contract.FILENAME) == b"dark.png"
    ]
    np.testing.assert_array_equal(tf.io.decode_png(encoded)[..., 0], dark >> 4)


def test_thumbnails_and_slices_that_a_table_lists_are_left_out_with_a_count(tmp_path):
    shot = tmp_path / "plateID_7" / "batchID_1" / "wellNum_2" / "profileID_1"
    shot.mkdir(parents=True)
    lines = ["filename,label"]
    for drop in range(1, 5):
        for kind in ("ef", "th", "00"):
            file = shot / f"d{drop}_r5_{kind}.jpg"
            draw(file, 10 * drop + ("ef", "th", "00").index(kind))
            lines.append(f"{file.relative_to(tmp_path)},Clear")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    table = from_csv(tmp_path / "labels.csv")
    assert [image.path.name[3:] for image in table.images] == ["r5_ef.jpg"] * 4 and table.left_out == 8
    done = import_images(table, tmp_path / "out")
    assert "left out, thumbnails and focus slices of drops with a better image: 8" in done.warnings


def test_copies_with_different_labels_are_left_out_and_named(tmp_path, plates):
    drops = tmp_path / "drops"
    original = drops / "Clear" / "0000_A1_ImagerDefaults_1.jpg"
    copy = drops / "Crystals" / "copy.jpg"
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(original.read_bytes())
    (drops / "Clear" / "same_label.jpg").write_bytes((drops / "Clear" / "0002_A1_ImagerDefaults_1.jpg").read_bytes())
    done = import_images(from_folder(drops), tmp_path / "set")
    assert dict(done.errors) == {
        str(original): f"labelled 'Clear', and its copy {copy} 'Crystals'; keep one",
        str(copy): f"labelled 'Crystals', and its copy {original} 'Clear'; keep one",
    }
    names = [value(example, contract.FILENAME) for each in read(tmp_path / "set").values() for example in each]
    assert len(names) == 12
    assert not {b"copy.jpg", original.name.encode()} & set(names)
    listed = (tmp_path / "set" / "import.errors.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(listed) == 3


def test_an_import_of_contradictory_copies_alone_says_so(tmp_path):
    for name in CLASSES:
        draw(tmp_path / "drops" / name / "drop.png", 1)
    with pytest.raises(InputError, match="only 0 images for three splits; 4 more are copies with different labels"):
        import_images(from_folder(tmp_path / "drops"), tmp_path / "set")
