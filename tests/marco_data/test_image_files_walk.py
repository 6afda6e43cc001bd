"""Folders as laboratories keep them: links, snapshots, recycle bins, unreadable folders, one file with many names."""

import itertools
import os
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from marco_data import image_files, shards
from marco_model import errors


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names(listing, folder):
    return [os.path.relpath(path, folder) for path in listing.files]


@pytest.fixture
def laboratory(tmp_path):
    """A folder of plates of which one is a link, with what storage keeps beside them."""
    fill(
        tmp_path,
        "store/p2/p2_A1.jpg",
        "plates/p1/p1_A1.jpg",
        "plates/.snapshot/daily/p1/p1_A1.jpg",
        "plates/.ipynb_checkpoints/p1_A1-checkpoint.jpg",
        "plates/p1/@eaDir/p1_A1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "plates/#recycle/p3_A1.jpg",
        "plates/$RECYCLE.BIN/S-1-5/$R1.jpg",
        "plates/System Volume Information/a.jpg",
        "plates/p1/._p1_A1.jpg",
        "plates/p1/a.jp2",
        "plates/p1/b.JP2",
        "plates/p1/picture",
        "plates/p1/notes.2024-01-02 ok",
    )
    (tmp_path / "plates" / "p2").symlink_to("../store/p2")
    return tmp_path


def test_linked_folders_are_entered_and_copies_are_left_out(laboratory):
    listing = image_files.find_images([laboratory / "plates"])
    assert names(listing, laboratory / "plates") == ["p1/p1_A1.jpg", "p2/p2_A1.jpg"]
    assert listing.summary() == (
        "passed over: 2 .jp2, 2 without ending; left out, hidden or copies: #recycle, $RECYCLE.BIN, "
        ".ipynb_checkpoints, .snapshot, @eaDir, System Volume Information"
    )


def test_a_hidden_folder_that_is_named_is_searched(laboratory):
    listing = image_files.find_images([laboratory / "plates" / ".snapshot" / "daily"])
    assert names(listing, laboratory) == ["plates/.snapshot/daily/p1/p1_A1.jpg"]


def test_links_to_oneself_and_upwards_end(tmp_path):
    fill(tmp_path, "above/plates/p1/a.jpg", "above/elsewhere/b.jpg")
    plates = tmp_path / "above" / "plates"
    (plates / "p1" / "loop").symlink_to(".")
    (plates / "up").symlink_to("..")
    (plates / "first").symlink_to("p1")
    (plates / "self").symlink_to("self")
    listing = image_files.find_images([plates])
    assert names(listing, plates) == ["p1/a.jpg", "self"]
    assert list(listing.unreadable) == [plates / "self"]
    with pytest.raises(errors.InputError, match=r"cannot be read: Too many levels.*; it links to self"):
        image_files.encoded_image(plates / "self")


def test_links_in_a_circle_end(tmp_path):
    fill(tmp_path, "a/a.jpg", "b/b.jpg")
    (tmp_path / "a" / "to").symlink_to("../b")
    (tmp_path / "b" / "back").symlink_to("../a")
    assert names(image_files.find_images([tmp_path / "a"]), tmp_path) == ["a/a.jpg", "a/to/b.jpg"]
    assert names(image_files.find_images([tmp_path]), tmp_path) == ["a/a.jpg", "b/b.jpg"]


def test_a_link_to_a_file_counts_after_the_file(tmp_path):
    fill(tmp_path, "plate/z.jpg", "store/0001")
    (tmp_path / "plate" / "latest.jpg").symlink_to("z.jpg")
    (tmp_path / "plate" / "A1.jpg").symlink_to("../store/0001")
    assert names(image_files.find_images([tmp_path]), tmp_path) == ["plate/A1.jpg", "plate/z.jpg"]


@hypothesis.given(st.permutations(range(6)), st.integers(1, 6))
@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_spellings_in_any_order_list_a_picture_once(tmp_path, order, count):
    fill(tmp_path, "plates/p1/a.jpg", "plates/p1/b.jpg")
    if not (tmp_path / "link").is_symlink():
        (tmp_path / "link").symlink_to("plates")
    folder = tmp_path / "plates"
    spellings = [
        folder,
        os.path.relpath(folder),
        folder / "p1" / ".." / "p1",
        tmp_path / "link",
        folder / "p1" / "b.jpg",
        f"{folder}//p1/./a.jpg",
    ]
    paths = [spellings[number] for number in order[:count]]
    listing = image_files.find_images(paths)
    real = [os.path.realpath(path) for path in listing.files]
    assert len(set(real)) == len(real)
    expected = {os.path.realpath(path) for path in paths if Path(path).is_file()}
    if any(Path(path).is_dir() for path in paths):
        expected = {str(folder / "p1" / name) for name in ("a.jpg", "b.jpg")}
    assert set(real) == expected


def refuse_folder(monkeypatch, folder):
    """Has the system refuse what it refuses without permission; root may read everything, whatever a folder's mode."""

    def refusing(function, refused):
        def call(path, **options):
            if str(path).startswith(refused):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, **options)

        return call

    monkeypatch.setattr(os, "scandir", refusing(os.scandir, str(folder)))
    monkeypatch.setattr(Path, "stat", refusing(Path.stat, f"{folder}/"))


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path, monkeypatch):
    fill(tmp_path, "plates/locked/a.jpg", "plates/b.jpg")
    (tmp_path / "plates" / "gone.jpg").symlink_to("../store/gone.jpg")
    (tmp_path / "plates" / "gone").symlink_to("/nowhere/p7")
    refuse_folder(monkeypatch, tmp_path / "plates" / "locked")
    listing = image_files.find_images([tmp_path / "plates"])
    assert names(listing, tmp_path / "plates") == ["b.jpg", "gone", "gone.jpg", "locked"]
    reasons = {
        "gone": "cannot be read: No such file or directory; it links to /nowhere/p7",
        "gone.jpg": "cannot be read: No such file or directory; it links to ../store/gone.jpg",
        "locked": "cannot be read: Permission denied",
    }
    assert {path.name: reason for path, reason in listing.unreadable.items()} == reasons
    for name, reason in reasons.items():
        with pytest.raises(errors.InputError, match=reason):
            image_files.encoded_image(tmp_path / "plates" / name)


def test_what_is_no_file_is_counted(tmp_path):
    fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    listing = image_files.find_images([tmp_path])
    assert names(listing, tmp_path) == ["a.jpg"]
    assert listing.summary() == "passed over: 1 not a file"


def test_a_summary_ends_after_the_common_endings(tmp_path):
    fill(tmp_path, *(f"a{copy}.e{number}" for number in range(12) for copy in range(12 - number)))
    assert image_files.walk([tmp_path], image_files.has_image_ending).summary().endswith("5 .e7, 10 others")


@pytest.mark.parametrize("path", ["missing", "missing/a.jpg", "file.jpg/a.jpg"])
def test_a_path_that_does_not_exist_is_named(tmp_path, path):
    fill(tmp_path, "file.jpg")
    with pytest.raises(errors.InputError, match=path):
        image_files.find_images([tmp_path / path])


def test_a_set_with_a_linked_folder_and_a_linked_shard_is_read_whole(tmp_path):
    fill(tmp_path, "set/train/train-00001-of-00002", "store/train-00002-of-00002", "store/more/test-00001-of-00001")
    (tmp_path / "set" / "train" / "train-00002-of-00002").symlink_to("../../store/train-00002-of-00002")
    (tmp_path / "set" / "test").symlink_to("../store/more")
    fill(tmp_path, "set/.snapshot/train/train-00001-of-00002")
    found = ["test/test-00001-of-00001", "train/train-00001-of-00002", "train/train-00002-of-00002"]
    source = str(tmp_path / "set")
    assert [file.name for file in shards.find_shards([source])] == found
    assert [file.name for file in shards.find_shards([f"{source}/**/t*-of-*"])] == found
    assert [file.name for file in shards.find_shards([f"{source}/**"])] == found
    assert [file.name for file in shards.find_shards([f"{source}/t*/train-*"])] == found[1:]
    assert len(shards.find_shards([source, os.path.relpath(source), f"{source}/test"])) == 3
    before = shards.fingerprint([source])
    for shard in ("train-00002-of-00002", "more/test-00001-of-00001"):
        (tmp_path / "store" / shard).write_bytes(b"changed")
        assert shards.fingerprint([source]) != before
        before = shards.fingerprint([source])


def test_a_set_that_cannot_be_read_whole_is_refused(tmp_path):
    fill(tmp_path, "set/train-00001-of-00002")
    (tmp_path / "set" / "train-00002-of-00002").symlink_to("../gone")
    for read in (shards.find_shards, shards.fingerprint):
        with pytest.raises(errors.InputError, match=r"train-00002-of-00002.*No such file.*it links to ../gone"):
            read([str(tmp_path / "set")])


@pytest.mark.parametrize("pattern", ["t*/train-*", "**/train-*", "**", "*/*-of-00002", "train?/train-00002-of-00002"])
@pytest.mark.parametrize("lost", ["folder", "linked folder", "linked shard"])
def test_a_glob_hides_nothing_that_cannot_be_read(tmp_path, monkeypatch, pattern, lost):
    fill(tmp_path, "set/train1/train-00001-of-00002", "set/train2/train-00002-of-00002", "set/notes/a.txt")
    source = f"{tmp_path}/set/{pattern}"
    assert shards.find_shards([source])
    folder = tmp_path / "set" / "train2"
    if lost == "folder":
        refuse_folder(monkeypatch, folder)
    else:
        (folder / "train-00002-of-00002").unlink()
        link = folder / "train-00002-of-00002"
        if lost == "linked folder":
            folder.rmdir()
            link = folder
        link.symlink_to("nowhere")
    reason = "Permission denied" if lost == "folder" else "No such file or directory; it links to nowhere"
    for read in (shards.find_shards, shards.fingerprint):
        with pytest.raises(errors.InputError, match=rf"train2.*{reason}"):
            read([source])


@pytest.mark.parametrize("pattern", ["train1/t*", "t*1/**", "*/train-00001-of-00002"])
def test_a_glob_needs_only_the_folders_that_it_leads_to(tmp_path, monkeypatch, pattern):
    fill(tmp_path, "set/train1/train-00001-of-00002", "set/notes/a.txt")
    (tmp_path / "set" / "gone").symlink_to("nowhere")
    if not pattern.startswith("*"):
        refuse_folder(monkeypatch, tmp_path / "set" / "notes")
        assert [file.name.rpartition("/")[2] for file in shards.find_shards([f"{tmp_path}/set/{pattern}"])] == [
            "train-00001-of-00002"
        ]
        return
    with pytest.raises(errors.InputError, match=r"set/gone.* it links to nowhere"):
        shards.find_shards([f"{tmp_path}/set/{pattern}"])


PARTS = st.sampled_from(["a", "b", "ab"])


@hypothesis.given(
    st.lists(st.lists(PARTS, min_size=1, max_size=3), max_size=6),
    st.lists(st.sampled_from(["a", "a*", "?", "[ab]", "*", "**"]), min_size=1, max_size=3),
)
@hypothesis.settings(deadline=None)
def test_globs_match_as_those_of_pathlib(tmp_path_factory, files, pattern):
    if not any(character in part for part in pattern for character in "*?["):
        return
    root = tmp_path_factory.mktemp("glob")
    for parts in files:
        # The names of files differ from those of folders.
        fill(root, "/".join([*(f"{part}" for part in parts[:-1]), f"{parts[-1]}.f"]))
    pattern[-1] = f"{pattern[-1]}.f" if pattern[-1] != "**" else "*.f"
    expected = sorted(path for path in root.glob("/".join(pattern)) if path.is_file())
    assert sorted(image_files.expand(str(root / "/".join(pattern)))[1].files) == expected


def test_objects_of_a_bucket_are_left_out_by_the_same_names():
    parts = [".snapshot", "p1", "@eaDir", "a.jpg"]
    for length in range(1, 4):
        for chosen in itertools.permutations(parts, length):
            hidden = any(image_files.is_left_out(part) for part in chosen)
            assert image_files.is_image_below("/".join(chosen)) == (chosen[-1] == "a.jpg" and not hidden)


@pytest.mark.parametrize("read", [image_files.find_images, shards.find_shards])
def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch, read):
    """As a script gives with a variable that is not set."""
    fill(tmp_path, "drop.jpg", "train-00000-of-00001")
    monkeypatch.chdir(tmp_path)
    assert read(["."])
    with pytest.raises(errors.InputError, match="empty"):
        read([""])
