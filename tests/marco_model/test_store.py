"""Whole files and folders on this machine; objects on fake-gcs-server, with faults on the way."""

import ctypes
import errno
import gc
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from marco_data.shards import find_shards
from marco_model import store
from marco_model.errors import ClusterError, InputError

CONTENT = random.Random(7).randbytes(700_000)
SHARD = "gs://drops/set/train-00001-of-00002"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_absolute_path_starts_at_the_root_and_a_uri_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert store.absolute("models") == f"{tmp_path}/models"
    assert store.absolute(f"{tmp_path}/models") == f"{tmp_path}/models"
    assert store.absolute("gs://served/drops") == "gs://served/drops"


def test_a_whole_file_replaces_the_old_one_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    for content in ("a,b\r\nä,1\n", "c\n"):
        with store.whole_file(path) as file:
            file.write(content)
            assert path.exists() is (content == "c\n")
        assert path.read_bytes() == content.encode()
    with store.whole_file(str(path), "wb") as file:
        file.write(b"\0")
    assert path.read_bytes() == b"\0"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), store.whole_file(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_concurrent_writers_never_mix_their_content(tmp_path):
    both_wrote = threading.Barrier(2)

    def write(letter):
        with store.whole_file(tmp_path / "file") as file:
            for _ in range(1000):
                file.write(letter)
            file.flush()
            both_wrote.wait(timeout=60)
            file.write(letter)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "file").read_text() in ("a" * 1001, "b" * 1001)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    code = f"""if True:
        import time
        from marco_model import store
        with store.whole_file({str(path)!r}) as file:
            file.write("half")
            file.flush()
            print("written", flush=True)
            time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    assert [other.suffix for other in tmp_path.iterdir() if other != path] == [".partial"]
    with store.whole_file(tmp_path / "other"):
        pass
    assert sorted(other.name for other in tmp_path.iterdir()) == ["file", "other"]


def test_the_file_that_another_process_writes_is_no_leftover(tmp_path):
    code = f"""if True:
        from marco_model import store
        with store.whole_file({str(tmp_path / "slow")!r}) as file:
            print("begun", flush=True)
            file.write(input())
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        with store.whole_file(tmp_path / "quick"):
            pass
        process.communicate("whole\n")
    assert (tmp_path / "slow").read_text() == "whole"


def test_content_and_name_are_on_the_disk_before_a_file_or_folder_appears(tmp_path, monkeypatch):
    synced, rename = [], pathlib.Path.replace

    def replace(path, target):
        synced.append("renamed")
        return rename(path, target)

    def fsync(descriptor):
        synced.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(pathlib.Path, "replace", replace)
    with store.whole_file(tmp_path / "file") as file:
        file.write("text")
    assert re.fullmatch(rf"\.file\.\w+\.partial renamed {tmp_path.name}", " ".join(synced))
    del synced[:]
    with store.whole_directory(tmp_path / "1") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").touch()
    assert {"file", "inner"} < {*synced[:3]} and synced[3:] == ["renamed", tmp_path.name]


def test_a_whole_folder_appears_at_the_end_and_replaces_none_that_holds_something(tmp_path):
    path = tmp_path / "models" / "1"
    with store.whole_directory(path) as aside:
        (aside / "saved_model.pb").write_bytes(b"graph")
        assert not path.exists()
    assert (path / "saved_model.pb").read_bytes() == b"graph"
    with pytest.raises(RuntimeError), store.whole_directory(tmp_path / "models" / "2"):
        raise RuntimeError
    with pytest.raises(InputError, match="not empty"), store.whole_directory(path) as aside:
        (aside / "saved_model.pb").write_bytes(b"another")
    assert (path / "saved_model.pb").read_bytes() == b"graph"
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_folder_is_replaced_on_windows_where_nothing_is_renamed_over_one(tmp_path, monkeypatch):
    rename = pathlib.Path.replace

    def replace(path, target):
        if target.is_dir():
            raise PermissionError(errno.EACCES, "Access is denied", str(target))
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "replace", replace)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "shards"
    path.mkdir()
    with store.whole_directory(path) as aside:
        (aside / "file").write_text("content")
    with pytest.raises(InputError, match="not empty"), store.whole_directory(path):
        pass
    assert names(path) == ["file"] and names(tmp_path) == ["shards"]


def test_if_two_folders_compete_for_a_place_one_appears_whole(tmp_path):
    with pytest.raises(InputError, match="not empty"), store.whole_directory(tmp_path / "1") as late:
        (late / "file").write_text("late")
        with store.whole_directory(tmp_path / "1") as early:
            (early / "file").write_text("early")
    assert (tmp_path / "1" / "file").read_text() == "early"
    assert len(list(tmp_path.iterdir())) == 1


def test_folders_of_killed_processes_are_deleted_and_those_of_running_ones_are_not(tmp_path):
    write = f"with store.whole_directory({str(tmp_path / '1')!r}) as aside: (aside / 'file').touch(); "
    for end in ("os.kill(os.getpid(), 9)", "print(flush=True); input()"):
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os\nfrom marco_model import store\n{write}{end}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process.stdout.readline()
    assert len(list(tmp_path.iterdir())) == 1
    with store.whole_directory(tmp_path / "1"):
        assert len(list(tmp_path.iterdir())) == 2
    process.kill()
    process.communicate()


def test_a_folder_is_replaced_at_once(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").touch()
    for exchanging in (True, False):
        if not exchanging:  # As on a system without renameat2.
            monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
        with store.whole_directory(tmp_path / "set", replace=True) as folder:
            (folder / f"new {exchanging}").touch()
            assert len(list((tmp_path / "set").iterdir())) == 1
        assert [path.name for path in (tmp_path / "set").iterdir()] == [f"new {exchanging}"]
        assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_no_moment_is_without_a_folder_that_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").touch()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: os._exit(9))  # Killed as soon as anything is deleted.
    child = os.fork()
    if not child:
        with store.whole_directory(tmp_path / "set", replace=True) as folder:
            (folder / "new").touch()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["new"]


def test_the_working_directory_is_filled_and_keeps_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rest = tmp_path / f".{tmp_path.name}.0123456789ab.partial"
    rest.mkdir()
    store.require_new_or_empty(tmp_path)  # But for what a killed process left.
    for name in (".", tmp_path):
        with store.whole_directory(name, replace=True) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "file").touch()
    assert names(tmp_path) == ["inner"] and names(tmp_path / "inner") == ["file"]
    with pytest.raises(InputError, match="not empty"), store.whole_directory(".") as folder:
        (folder / "other").touch()
    assert names(tmp_path) == ["inner"]


def test_one_process_at_a_time_writes_into_a_folder(tmp_path):
    code = f"""if True:
        import pathlib
        from marco_model import store
        with store.sole_writer(pathlib.Path({str(tmp_path / "out")!r})):
            print("in", flush=True)
            input()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(InputError, match=r"another process writes into .*/out; wait"):
            store.sole_writer(tmp_path / "out").__enter__()
        threading.Timer(0.2, process.communicate, ["\n"]).start()
        with store.sole_writer(tmp_path / "out", seconds=30):
            assert names(tmp_path / "out") == [store.LOCK_FILE]
    assert names(tmp_path / "out") == []


def test_the_first_error_of_several_at_once_is_raised():
    done = []

    def work(number):
        if number == 2:
            raise InputError("two")
        done.append(number)

    with pytest.raises(InputError, match="two"):
        store.in_parallel(work, range(4))
    assert {0, 1} <= set(done) <= {0, 1, 3}


@pytest.fixture
def bucket(gcs, monkeypatch):
    """The emulator with one object; objects are read in blocks of 256 KiB."""
    monkeypatch.setattr(store, "_BLOCK_BYTES", 1 << 18)
    gcs.bucket("drops").blob("set/train-00001-of-00002").upload_from_string(CONTENT)
    return gcs


def read_in_pieces(uri, size=10_007):
    pieces = []
    with store.open_raw(uri) as file:
        while piece := file.read(size):
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize(
    "kind", ["503", "cut", "lost", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("429", "reset", "slow"))]
)
def test_a_fault_in_the_middle_of_an_object_neither_loses_nor_doubles_a_byte(bucket, monkeypatch, kind):
    """The second block fails after the first has been returned."""
    if kind == "slow":
        monkeypatch.setattr(store, "READ_SECONDS", 1.0)
    fault = bucket.inject(kind, r"bytes=262144-", seconds=1.3)
    pieces = read_in_pieces(SHARD)
    assert fault.hits == 1
    assert b"".join(pieces) == CONTENT
    assert {len(piece) for piece in pieces[:-1]} == {10_007}


def test_reading_continues_after_a_cut_and_reads_nothing_twice(bucket):
    bucket.inject("cut", r"bytes=262144-", times=2)
    assert b"".join(read_in_pieces(SHARD)) == CONTENT
    starts = [int(match[1]) for request in bucket.requests if (match := re.search(r"bytes=(\d+)-", request))]
    assert starts[:2] == [0, 262_144]
    assert starts == sorted(set(starts))


@pytest.mark.slow
def test_several_faults_are_all_outlasted(bucket):
    for kind in ("503", "cut", "lost"):
        bucket.inject(kind, r"GET .*(alt=media|/o/set)", times=2)
    assert store.read_bytes(SHARD) == CONTENT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["503", "lost", "cut upload"])
def test_a_lasting_failure_ends_in_time_with_one_line(bucket, monkeypatch, kind):
    monkeypatch.setattr(store, "RETRY_SECONDS", 3.0)
    bucket.inject(kind, r"GET .*alt=media", times=10**9)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=rf"^{SHARD} cannot be reached or fails") as raised:
        store.read_bytes(SHARD)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - begun < 60  # Well above the 3 s, for a busy machine, and well below for ever.


@pytest.mark.parametrize(("kind", "message"), [("403", r"is refused .*403"), ("404", "does not exist")])
def test_a_failure_that_will_not_pass_is_reported_at_once(bucket, kind, message):
    fault = bucket.inject(kind, r"GET .*alt=media", times=10**9)
    with pytest.raises(InputError, match=rf"^{SHARD} {message}"):
        store.read_bytes(SHARD)
    assert fault.hits == 1
    with pytest.raises(InputError, match=r"^gs://drops/none does not exist"):
        store.read_bytes("gs://drops/none")


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(bucket):
    """The emulator ignores the condition that every download carries; the service answers 412."""
    bucket.inject("412", r"ifGenerationMatch=[1-9].*alt=media|alt=media.*ifGenerationMatch=[1-9]")
    with pytest.raises(ClusterError, match=f"^{SHARD} was changed by another"):
        store.read_bytes(SHARD)


@pytest.mark.parametrize("kind", ["503", "lost", pytest.param("slow", marks=pytest.mark.slow)])
def test_listing_outlasts_a_fault(bucket, monkeypatch, kind):
    if kind == "slow":
        monkeypatch.setattr(store, "READ_SECONDS", 1.0)
    fault = bucket.inject(kind, r"GET /storage/v1/b/drops/o\?", seconds=1.3)
    assert [file.name for file in find_shards(["gs://drops/set"])] == ["train-00001-of-00002"]
    assert fault.hits == 1


def test_names_patterns_and_folders_find_what_they_do_on_disk(bucket):
    drops = bucket.client().bucket("drops")
    for name in ("set/deep/train-00002-of-00002", "settled/train-00001-of-00001", "set/readme.txt"):
        drops.blob(name).upload_from_string(b"")

    def names(path):
        return [file.name for file in find_shards([path])]

    assert names("gs://drops/set") == names("gs://drops/set/") == ["deep/train-00002-of-00002", "train-00001-of-00002"]
    assert names(SHARD) == ["train-00001-of-00002"]
    assert names("gs://drops/set/train-*") == ["train-00001-of-00002"]
    assert names("gs://drops/*/train-*") == ["set/train-00001-of-00002", "settled/train-00001-of-00001"]
    assert len(names("gs://drops")) == 3
    assert store.exists(SHARD) and not store.exists("gs://drops/none")
    for missing in ("gs://drops/none", "gs://drops/set/eval-*", "gs://nowhere/set"):
        with pytest.raises(InputError, match=missing.replace("*", r"\*")):
            find_shards([missing])


def test_listing_without_access_is_reported(bucket):
    bucket.inject("403", r"GET /storage/v1/b/drops/o\?", times=10**9)
    with pytest.raises(InputError, match=r"^gs://drops/set is refused"):
        find_shards(["gs://drops/set"])


@pytest.mark.parametrize("uri", ["gs://", "gs:///set", "gs://UPPER/set"])
def test_a_uri_without_a_bucket_is_refused(uri):
    with pytest.raises(InputError, match="names no bucket"):
        find_shards([uri])


@pytest.mark.parametrize("uri", ["s3://drops/set", "ftp://drops/set"])
def test_stores_that_cannot_be_read_are_named(uri):
    with pytest.raises(InputError, match=f"^'{uri}': {uri[:2]}.* cannot be read; give gs://"):
        find_shards([uri])


@pytest.mark.slow
def test_writing_outlasts_faults(bucket, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    for kind in ("503", "cut upload", "lost"):
        fault = bucket.inject(kind, r"/upload/")
        store.upload(tmp_path / "file", "gs://drops/uploaded")
        assert fault.hits == 1
        assert bucket.objects("gs://drops/uploaded") == {"": CONTENT}
    with store.create_object("gs://drops/created") as file:
        file.write(CONTENT[:300_000])
        bucket.inject("503", r"PUT .*/upload/")
        file.write(CONTENT[300_000:])
    assert bucket.objects("gs://drops/created") == {"": CONTENT}


@pytest.mark.parametrize("size", [3_000, 300_000])  # Nothing is sent before the first block of 262,144 bytes is full.
def test_an_object_that_is_not_written_to_the_end_does_not_appear(bucket, size):
    """Neither when the file is dropped, whose name another attempt may have written to by then, nor after an error."""
    drops = bucket.client().bucket("drops")
    file = store.create_object("gs://drops/created")
    file.write(CONTENT[:size])
    drops.blob("created").upload_from_string(b"another")
    del file
    gc.collect()
    with pytest.raises(RuntimeError), store.create_object("gs://drops/created") as file:
        file.write(CONTENT[:size])
        raise RuntimeError
    del file
    gc.collect()
    assert bucket.objects("gs://drops/created") == {"": b"another"}
    with store.create_object("gs://drops/created") as file:
        file.write(CONTENT[:size])
    assert bucket.objects("gs://drops/created") == {"": CONTENT[:size]}


@pytest.mark.parametrize("kind", ["503", "cut", "lost"])
def test_a_download_is_the_object_and_is_checked(bucket, tmp_path, kind):
    fault = bucket.inject(kind, r"GET .*alt=media")
    store.download(SHARD, tmp_path / "deep" / "file")
    assert fault.hits == 1
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT


def test_bytes_are_written_whole_to_a_file_and_an_object(bucket, tmp_path):
    for place in (str(tmp_path / "deep" / "file"), "gs://drops/deep/file"):
        for content in (b"first", b"second"):
            store.write_bytes(place, content)
            assert store.read_bytes(place) == content
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    bucket.inject("403", r"/upload/", times=10**9)
    with pytest.raises(InputError, match=r"^gs://drops/deep/file is refused"):
        store.write_bytes("gs://drops/deep/file", b"third")
