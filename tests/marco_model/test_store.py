"""Reading and writing objects on fake-gcs-server, with faults on the way."""

import gc
import random
import re
import time

import pytest

from marco_data.shards import find_shards
from marco_model import store as object_store
from marco_model.errors import ClusterError, InputError
from marco_model.store import absolute, create_object, download, exists, open_raw, read_bytes, upload

CONTENT = random.Random(7).randbytes(700_000)


SHARD = "gs://drops/set/train-00001-of-00002"


@pytest.fixture
def store(gcs, monkeypatch):
    """The emulator with one object; objects are read in blocks of 256 KiB."""
    monkeypatch.setattr(object_store, "_BLOCK_BYTES", 1 << 18)
    gcs.bucket("drops").blob("set/train-00001-of-00002").upload_from_string(CONTENT)
    return gcs


def read_in_pieces(uri, size=10_007):
    pieces = []
    with open_raw(uri) as file:
        while piece := file.read(size):
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize(
    "kind", ["503", "cut", "lost", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("429", "reset", "slow"))]
)
def test_a_fault_in_the_middle_of_an_object_neither_loses_nor_doubles_a_byte(store, monkeypatch, kind):
    """The second block fails: the first has been handed on by then."""
    if kind == "slow":
        monkeypatch.setattr(object_store, "READ_SECONDS", 1.0)
    fault = store.inject(kind, r"bytes=262144-", seconds=1.3)
    pieces = read_in_pieces(SHARD)
    assert fault.hits == 1
    assert b"".join(pieces) == CONTENT
    assert {len(piece) for piece in pieces[:-1]} == {10_007}


def test_what_is_cut_is_gone_on_with_and_not_read_again(store):
    store.inject("cut", r"bytes=262144-", times=2)
    assert b"".join(read_in_pieces(SHARD)) == CONTENT
    asked = [int(found[1]) for request in store.requests if (found := re.search(r"bytes=(\d+)-", request))]
    assert asked[:2] == [0, 262_144]
    assert asked == sorted(set(asked))


@pytest.mark.slow
def test_several_faults_are_all_outlasted(store):
    for kind in ("503", "cut", "lost"):
        store.inject(kind, r"GET .*(alt=media|/o/set)", times=2)
    assert read_bytes(SHARD) == CONTENT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["503", "lost", "cut upload"])
def test_what_fails_for_ever_ends_in_time_with_one_line(store, monkeypatch, kind):
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 3.0)
    store.inject(kind, r"GET .*alt=media", times=10**9)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=rf"^{SHARD} cannot be reached or fails") as raised:
        read_bytes(SHARD)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - begun < 60  # Far from the 3 s, for a busy machine, and from for ever.


@pytest.mark.parametrize(("kind", "message"), [("403", r"is refused .*403"), ("404", "does not exist")])
def test_what_will_not_pass_is_told_at_once(store, kind, message):
    fault = store.inject(kind, r"GET .*alt=media", times=10**9)
    with pytest.raises(InputError, match=rf"^{SHARD} {message}"):
        read_bytes(SHARD)
    assert fault.hits == 1
    with pytest.raises(InputError, match=r"^gs://drops/none does not exist"):
        read_bytes("gs://drops/none")


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(store):
    """The emulator does not look at the condition that every download carries; the service answers 412."""
    store.inject("412", r"ifGenerationMatch=[1-9].*alt=media|alt=media.*ifGenerationMatch=[1-9]")
    with pytest.raises(ClusterError, match=f"^{SHARD} was changed by another"):
        read_bytes(SHARD)


@pytest.mark.parametrize("kind", ["503", "lost", pytest.param("slow", marks=pytest.mark.slow)])
def test_listing_outlasts_a_fault(store, monkeypatch, kind):
    if kind == "slow":
        monkeypatch.setattr(object_store, "READ_SECONDS", 1.0)
    fault = store.inject(kind, r"GET /storage/v1/b/drops/o\?", seconds=1.3)
    assert [file.name for file in find_shards(["gs://drops/set"])] == ["train-00001-of-00002"]
    assert fault.hits == 1


def test_names_patterns_and_folders_find_what_they_do_on_disk(store):
    drops = store.client().bucket("drops")
    for name in ("set/deep/train-00002-of-00002", "settled/train-00001-of-00001", "set/readme.txt"):
        drops.blob(name).upload_from_string(b"")

    def names(path):
        return [file.name for file in find_shards([path])]

    assert names("gs://drops/set") == names("gs://drops/set/") == ["deep/train-00002-of-00002", "train-00001-of-00002"]
    assert names(SHARD) == ["train-00001-of-00002"]
    assert names("gs://drops/set/train-*") == ["train-00001-of-00002"]
    assert names("gs://drops/*/train-*") == ["set/train-00001-of-00002", "settled/train-00001-of-00001"]
    assert len(names("gs://drops")) == 3
    assert exists(SHARD) and not exists("gs://drops/none")
    for none in ("gs://drops/none", "gs://drops/set/eval-*", "gs://nowhere/set"):
        with pytest.raises(InputError, match=none.replace("*", r"\*")):
            find_shards([none])


def test_listing_without_access_is_told(store):
    store.inject("403", r"GET /storage/v1/b/drops/o\?", times=10**9)
    with pytest.raises(InputError, match=r"^gs://drops/set is refused"):
        find_shards(["gs://drops/set"])


@pytest.mark.parametrize("uri", ["gs://", "gs:///set", "gs://UPPER/set"])
def test_a_uri_without_a_bucket_is_told(uri):
    with pytest.raises(InputError, match="names no bucket"):
        find_shards([uri])


@pytest.mark.parametrize("uri", ["s3://drops/set", "ftp://drops/set"])
def test_stores_that_are_not_read_are_told(uri):
    with pytest.raises(InputError, match=f"^'{uri}': {uri[:2]}.* cannot be read; give gs://"):
        find_shards([uri])


@pytest.mark.slow
def test_writing_outlasts_faults(store, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    for kind in ("503", "cut upload", "lost"):
        fault = store.inject(kind, r"/upload/")
        upload(tmp_path / "file", "gs://drops/uploaded")
        assert fault.hits == 1
        assert store.objects("gs://drops/uploaded") == {"": CONTENT}
    with create_object("gs://drops/created") as file:
        file.write(CONTENT[:300_000])
        store.inject("503", r"PUT .*/upload/")
        file.write(CONTENT[300_000:])
    assert store.objects("gs://drops/created") == {"": CONTENT}


@pytest.mark.parametrize("size", [3_000, 300_000])  # Nothing is sent before the first block of 262,144 bytes is full.
def test_what_is_not_written_to_the_end_does_not_appear(store, size):
    """Neither when the file is dropped, whose name another attempt may have written to by then, nor after an error."""
    drops = store.client().bucket("drops")
    file = create_object("gs://drops/created")
    file.write(CONTENT[:size])
    drops.blob("created").upload_from_string(b"another")
    del file
    gc.collect()
    with pytest.raises(RuntimeError), create_object("gs://drops/created") as file:
        file.write(CONTENT[:size])
        raise RuntimeError
    del file
    gc.collect()
    assert store.objects("gs://drops/created") == {"": b"another"}
    with create_object("gs://drops/created") as file:
        file.write(CONTENT[:size])
    assert store.objects("gs://drops/created") == {"": CONTENT[:size]}


def test_a_download_is_checked(store, tmp_path):
    download(SHARD, tmp_path / "deep" / "file")
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT


def test_an_absolute_path_starts_at_the_root_and_a_uri_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("models") == f"{tmp_path}/models"
    assert absolute(f"{tmp_path}/models") == f"{tmp_path}/models"
    assert absolute("gs://served/drops") == "gs://served/drops"
