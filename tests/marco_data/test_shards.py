import os

import pytest

from marco_data.shards import find_shards, fingerprint, hashed_split, split_of
from marco_model.errors import InputError


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names(*paths):
    return [file.name for file in find_shards([str(path) for path in paths])]


def test_shards_are_found_in_folders_files_and_globs_and_other_files_are_not(tmp_path):
    fill(tmp_path, "set/train-00002-of-00002", "set/train-00001-of-00002", "set/sources.csv", "set/deep/a.tfrecord.gz")
    found = ["deep/a.tfrecord.gz", "train-00001-of-00002", "train-00002-of-00002"]
    assert names(tmp_path / "set") == found
    assert names(tmp_path / "set" / "train-00001-of-00002") == ["train-00001-of-00002"]
    assert names(tmp_path / "set" / "train-*") == found[1:]
    assert names(tmp_path / "*" / "train-*-of-*") == ["set/train-00001-of-00002", "set/train-00002-of-00002"]


def test_shards_of_one_name_go_by_their_paths(tmp_path):
    fill(tmp_path, "a/train-00001-of-00001", "b/train-00001-of-00001")
    assert names(tmp_path / "a", tmp_path / "b") == [str(tmp_path / part / "train-00001-of-00001") for part in "ab"]
    assert len(names(tmp_path / "a", tmp_path / "a" / "train-00001-of-00001")) == 1


@pytest.mark.parametrize("path", ["none", "none-*", "empty", "other"])
def test_a_path_without_shards_is_named(tmp_path, path):
    (tmp_path / "empty").mkdir()
    fill(tmp_path, "other/readme.txt")
    with pytest.raises(InputError, match=path.replace("*", r"\*")):
        find_shards([str(tmp_path / path)])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00001-of-00407", "train"),
        ("test-00001-of-00046", "eval"),
        ("eval-00001-of-00001.gz", "eval"),
        ("validation-00001-of-00002", "validation"),
        ("Split-validation/data_tfrecord-00000-of-00001", "validation"),
        ("val/part-00001-of-00002", "validation"),
        ("test-jpg/part-00001-of-00002", "eval"),
        ("Split-train/data_tfrecord-00000-of-00001.gz", "train"),
        ("gs://bucket/test/train-00001-of-00002", "train"),
    ],
)
def test_splits_follow_from_file_names(name, split):
    assert split_of(name) == split


def test_a_fingerprint_changes_with_names_sizes_and_times_alone(tmp_path):
    fill(tmp_path, "a/train-00001-of-00001", "a/sources.csv")
    seen = {fingerprint([str(tmp_path / "a")])}
    assert fingerprint([str(tmp_path / "a")]) in seen
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint([str(tmp_path / "b")]) in seen
    shard = tmp_path / "b" / "train-00001-of-00001"
    status = shard.stat()
    shard.write_bytes(b"longer than it was before")
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.add(fingerprint([str(tmp_path / "b")]))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    seen.add(fingerprint([str(tmp_path / "b")]))
    (tmp_path / "b" / "sources.csv").rename(tmp_path / "b" / "other.csv")
    seen.add(fingerprint([str(tmp_path / "b")]))
    assert len(seen) == 4


@pytest.mark.parametrize("table", ["sources.csv", "labels-raw.csv"])
def test_a_fingerprint_changes_with_the_tables_above_the_shards(tmp_path, table):
    fill(tmp_path, "set/train-jpg/train-00001-of-00001")
    source = [str(tmp_path / "set" / "train-jpg" / "train-*")]
    seen = {fingerprint(source)}
    for text in ("id,name\n0,one\n", "id,name\n0,two\n"):
        (tmp_path / "set" / table).write_text(text)
        seen.add(fingerprint(source))
    assert len(seen) == 3


@pytest.mark.parametrize("table", ["sources.csv", "labels-raw.csv"])
def test_a_fingerprint_changes_with_the_tables_of_each_set(tmp_path, table):
    fill(tmp_path, "a/jpg/train-00001-of-00001", "b/jpg/train-00001-of-00001")
    sources, seen = [str(tmp_path / name / "jpg" / "train-*") for name in "ab"], set()
    for name, text in (("a", "0,one\n"), ("b", "0,two\n"), ("b", "0,six\n")):
        (tmp_path / name / table).write_text(text)
        seen.add(fingerprint(sources))
    assert len(seen) == 3


def shares(names_and_ids, eval_share, validation_share):
    """Returns the share of all in the evaluation split, and of the others in the validation split."""
    drawn = [hashed_split(name, image_id, eval_share, validation_share) for name, image_id in names_and_ids]
    others = [split for split in drawn if split != "eval"]
    return drawn.count("eval") / len(drawn), others.count("validation") / len(others)


def test_all_images_of_a_plate_are_in_one_split():
    for plate in range(50):
        names = [f"{plate:04x}_A{well}_ImagerDefaults_{well}.jpg" for well in range(1, 13)]
        assert len({hashed_split(name, well, 0.3, 0.5) for well, name in enumerate(names)}) == 1


def test_shares_are_kept_to_within_four_standard_deviations():
    images = [(f"image-{number}.png", number) for number in range(4000)]
    plates = [(f"{number:04x}_A1_ImagerDefaults_1.jpg", 1) for number in range(4000)]
    for expected in ((0.1, 0.1), (0.5, 0.1), (0.2, 0.5)):
        for drawn in (shares(images, *expected), shares(plates, *expected)):
            for actual, share, count in zip(drawn, expected, (4000, 4000 * (1 - expected[0])), strict=True):
                assert abs(actual - share) < 4 * (share * (1 - share) / count) ** 0.5


def test_a_larger_share_only_adds_to_the_evaluation_set():
    for number in range(300):
        name = f"image-{number}.png"
        assert hashed_split(name, number, 0.2, 0) == "train" or hashed_split(name, number, 0.4, 0) == "eval"
        assert hashed_split(name, number, 0.2, 0.1) in ("train", hashed_split(name, number, 0.2, 0.3))


@pytest.mark.slow
def test_copies_in_a_bucket_are_no_shards(gcs):
    bucket = gcs.bucket("drops")
    for folder in ("set/", "set/.snapshot/", "set/@eaDir/"):
        bucket.blob(f"{folder}train-00001-of-00001").upload_from_string(b"x")
    assert [file.path for file in find_shards(["gs://drops/set"])] == ["gs://drops/set/train-00001-of-00001"]
