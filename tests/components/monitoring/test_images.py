import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from components.monitoring import measure
from components.monitoring.measure import Naming, candidates, encoded_images, find_images, institutions
from marco_data import contract
from marco_data.place_reader import NamedPlaces
from marco_data.tfrecord import frame
from marco_model import pixels
from marco_model.errors import InputError


def example(data, name, source, **texts):
    """A MARCO record, with `texts` as the features that ExampleGen adds."""
    record = contract.build_example(
        encoded=data,
        image_format="JPEG",
        height=1,
        width=1,
        filename=name,
        image_id=1,
        label=0,
        label_text="Clear",
        label_raw=0,
        source=source,
    )
    for key, value in texts.items():
        record.features.feature[key].bytes_list.value.append(value.encode())
    return record.SerializeToString()


@pytest.fixture
def shards(tmp_path, real_images):
    data = real_images["clear_220.jpeg"].read_bytes()
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    records = [
        example(data, "03c3_G6_ImagerDefaults_6.jpg", 1),
        b"no example",
        example(bomb, "C000001-A01a-201201.jpg", 1),
        example(data, "1.jpg", 4, institution="Lab", imager="Own"),
    ]
    damaged = bytearray(frame(records[0]))
    damaged[-1] ^= 1
    (tmp_path / "train-00001-of-00001").write_bytes(b"".join([bytes(damaged), *map(frame, records)]))
    (tmp_path / "sources.csv").write_text("id,name\n1,CSIRO\n4,Merck\n")
    return tmp_path


def test_records_name_their_imager_and_damaged_ones_are_skipped(shards, real_images):
    (shard,) = find_images([str(shards)])
    sources = institutions([str(shards)], [shard])
    found = list(candidates(shard, Naming(), sources, seed=0))
    assert [(candidate.index, candidate.imager) for candidate in found] == [
        (1, "CSIRO / Formulatrix Rock Imager"),
        (3, "CSIRO / Rigaku Minstrel"),
        (4, "Lab / Own"),
    ]
    got = {candidate.index: data for candidate, data in encoded_images(shard.path, [found[0], found[1]])}
    assert got[1] == real_images["clear_220.jpeg"].read_bytes()
    assert "9000x9000 pixels are more" in measure._row(found[1], 0, got[3])["reason"]
    assert {candidate.imager for candidate in candidates(shard, Naming(), {}, seed=0)} == {"unknown", "Lab / Own"}


def test_records_of_two_sets_have_the_institutions_of_their_own(shards, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "train-00001-of-00001").write_bytes((shards / "train-00001-of-00001").read_bytes())
    (other / "sources.csv").write_text("id,name\n1,Elsewhere\n")
    found = find_images([str(shards), str(other)])
    sources = institutions([str(shards), str(other)], found)
    imagers = {each.path: [c.imager for c in candidates(each, Naming(), sources, 0)] for each in found}
    assert imagers[os.fsencode(shards / "train-00001-of-00001")][0] == "CSIRO / Formulatrix Rock Imager"
    assert imagers[os.fsencode(other / "train-00001-of-00001")][0] == "Elsewhere"


def test_a_damaged_image_is_not_measured(real_images):
    data = real_images["clear_220.jpeg"].read_bytes()
    row = measure._row(measure.Candidate(0, b"a.jpg", -1, "Own", "a.jpg"), 0, data[: len(data) // 2] + data[-2:])
    assert "premature end" in row["reason"]
    assert (row["statistics"], row["thumbnail"]) == ([], b"")


@pytest.mark.parametrize("feature", [contract.SOURCE, contract.FILENAME, contract.ENCODED])
def test_a_record_with_an_empty_feature_does_not_stop_the_others(tmp_path, real_images, feature):
    data = real_images["clear_220.jpeg"].read_bytes()
    empty = contract.parse_example(example(data, "empty.jpg", 1))
    empty.features.feature[feature].ClearField(empty.features.feature[feature].WhichOneof("kind"))
    records = [empty.SerializeToString(), example(data, "whole.jpg", 1)]
    (tmp_path / "train-00001-of-00001").write_bytes(b"".join(map(frame, records)))
    (tmp_path / "sources.csv").write_text("id,name\n1,CSIRO\n")
    (shard,) = find_images([str(tmp_path)])
    found = list(candidates(shard, Naming(), institutions([str(tmp_path)], [shard]), seed=0))
    assert "whole.jpg" in [candidate.name for candidate in found]
    assert dict(encoded_images(shard.path, found))[found[-1]] == data


def test_the_draw_depends_on_names_and_seed_alone(shards):
    (shard,) = find_images([str(shards)])
    first, again, other = ([c.priority for c in candidates(shard, Naming(), {}, seed)] for seed in (0, 0, 1))
    assert first == again and set(first).isdisjoint(other)


def test_days_selects_files_that_changed_lately(tmp_path):
    for name, days in (("new.jpg", 1), ("old.jpg", 30)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    (tmp_path / "notes.txt").write_text("x")
    assert [image.name for image in find_images([str(tmp_path)], days=7)] == ["new.jpg"]
    assert [image.name for image in find_images([str(tmp_path)])] == ["new.jpg", "old.jpg"]


def test_a_folder_is_read_as_a_prediction_reads_it(tmp_path):
    folder = tmp_path / "incoming"
    for name in ("incoming/p1/a.jpg", "incoming/.snapshot/p1/a.jpg", "incoming/@eaDir/a.jpg", "store/p2/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (folder / "p2").symlink_to("../store/p2")
    (folder / "gone.jpg").symlink_to("../store/gone.jpg")
    images = find_images([str(folder), os.path.relpath(folder), f"{folder}/p1/../p1", str(folder / "p1" / "a.jpg")])
    assert [image.name for image in images] == ["gone.jpg", "p1/a.jpg", "p2/b.jpg"]
    (candidate,) = candidates(images[0], Naming(), {}, seed=0)
    ((_, reason),) = encoded_images(images[0].path, [candidate])
    assert reason == "cannot be read: No such file or directory; it links to ../store/gone.jpg"


def test_a_folder_without_images_or_shards_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no images and no TFRecord shards"):
        find_images([str(tmp_path)])


@pytest.mark.slow
def test_a_bucket_can_be_used_as_a_folder(gcs, real_images):
    data = real_images["clear_220.jpeg"].read_bytes()
    gcs.bucket("drops").blob("in/rock/1.jpg").upload_from_string(data)
    (image,) = find_images(["gs://drops/in"])
    (candidate,) = candidates(image, Naming((("rock/*", "Rock"),)), {}, seed=0)
    assert candidate.imager == "Rock"
    assert [got for _, got in encoded_images(image.path, [candidate])] == [data]


def test_a_name_that_is_not_utf_8_is_read_and_shown_as_text(tmp_path, real_images):
    data = real_images["clear_220.jpeg"].read_bytes()
    (tmp_path / os.fsdecode(b"tr\xf6pfchen.jpg")).write_bytes(data)
    (image,) = find_images([str(tmp_path)])
    (candidate,) = candidates(image, Naming(), {}, seed=0)
    assert candidate.name == r"tr\xf6pfchen.jpg"
    assert [got for _, got in encoded_images(image.path, [candidate])] == [data]


def test_the_cameras_bits_are_those_of_a_prediction(tmp_path):
    Image.fromarray(np.full((30, 40), 1020, np.uint16)).save(tmp_path / "a.tif")
    (image,) = find_images([str(tmp_path)])
    (candidate,) = candidates(image, Naming(), {}, seed=0)
    for bits, value in ((None, 1020 >> 2), (12, 1020 >> 4)):
        ((_, data),) = encoded_images(image.path, [candidate], bits)
        assert pixels.decode(data).max() == value


def test_names_date_images_and_slices_are_left_out(tmp_path):
    today = time.strftime("%Y-%m-%d")
    for name in (f"p_{today}.jpg", "p_2001-01-01.jpg", "x_2001-01-01.jpg"):
        (tmp_path / name).touch()
    os.utime(tmp_path / f"p_{today}.jpg", (0, 0))
    storage = tmp_path / "plateID_7" / "batchID_1" / "wellNum_2" / "profileID_1"
    storage.mkdir(parents=True)
    for kind in ("ef", "th", "00"):
        (storage / f"d1_r5_{kind}.jpg").touch()
    naming = Naming(names=NamedPlaces("(?P<plate>p)_(?P<date>[0-9-]+)"))
    names = [image.name.rsplit("/", 1)[-1] for image in find_images([str(tmp_path)], 7, naming)]
    assert names == [f"p_{today}.jpg", "d1_r5_ef.jpg", "x_2001-01-01.jpg"]  # The last two by the time of the file.
    with pytest.raises(InputError, match="--names names none of the images"):
        find_images([str(tmp_path)], naming=Naming(names=NamedPlaces("(?P<plate>zzz)")))
