"""The ingest from and to `gs://`, on fake-gcs-server, a real server with the service's protocol."""

import gc
import time
from pathlib import Path

import pytest

from components.example_gen.files import RecordWriter
from components.example_gen.ingest import ingest
from components.settings import IngestOptions
from marco_data.shards import fingerprint
from marco_model import store
from marco_model.errors import ClusterError, InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def drops(gcs, damaged_set):
    """A bucket with the damaged set in `set/`."""
    bucket = gcs.bucket("drops")
    for path in Path(damaged_set.folder).iterdir():
        bucket.blob(f"set/{path.name}").upload_from_filename(str(path))
    return bucket


def test_a_bucket_gives_and_takes_what_a_folder_does(drops, damaged_set, tmp_path):
    before = fingerprint(["gs://drops/set"])
    remote = ingest(["gs://drops/set"], "gs://drops/out/examples", "gs://drops/out/quarantine")
    local = ingest([damaged_set.folder], str(tmp_path / "examples"), str(tmp_path / "quarantine"))
    assert remote == local
    written = {blob.name.removeprefix("out/"): blob.download_as_bytes() for blob in drops.list_blobs(prefix="out/")}
    assert written == {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert fingerprint(["gs://drops/set"]) == before
    drops.blob("set/train-00005-of-00005").upload_from_string(b"no longer empty")
    assert fingerprint(["gs://drops/set"]) != before

    options = IngestOptions(max_quarantined=0.1)
    with pytest.raises(InputError, match=r"see gs://drops/over/quarantine/quarantine\.csv"):
        ingest(["gs://drops/set/train-*"], "gs://drops/over/examples", "gs://drops/over/quarantine", options)
    assert not list(drops.list_blobs(prefix="over/examples"))
    with pytest.raises(InputError, match="gs://drops/none"):
        ingest(["gs://drops/none"], "gs://drops/a", "gs://drops/b")


def test_faults_while_shards_are_read_and_examples_written_change_nothing(
    drops, gcs, damaged_set, tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "READ_SECONDS", 3.0)
    faults = [
        gcs.inject("503", r"GET .*train-00001-of-00005.*alt=media"),
        gcs.inject("cut", r"GET .*train-00002-of-00005.*alt=media"),
        gcs.inject("slow", r"GET .*test-00001-of-00002.*alt=media", seconds=4),
        gcs.inject("reset", r"GET .*train-00004-of-00005.*alt=media"),
        gcs.inject("503", r"POST .*/upload/"),
        gcs.inject("cut upload", r"PUT .*/upload/"),
        gcs.inject("lost", r"POST .*rewriteTo"),
    ]
    remote = ingest(["gs://drops/set"], "gs://drops/out/examples", "gs://drops/out/quarantine")
    assert [fault.hits for fault in faults] == [1] * len(faults)
    assert remote == ingest([damaged_set.folder], str(tmp_path / "examples"), str(tmp_path / "quarantine"))
    assert gcs.objects("gs://drops/out/") == {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("place", ["gs://drops/out", ""])
def test_a_piece_that_is_dropped_half_written_does_not_appear(drops, gcs, tmp_path, place):
    path = f"{place or tmp_path}/data-00000.tfrecord"
    writer = RecordWriter(path)
    writer.write_record(b"half" * 1000)
    del writer
    gc.collect()
    assert not store.exists(path)
    writer = RecordWriter(path)
    writer.close()
    assert store.exists(path)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("503", ClusterError, r"^gs://drops/set/train-00002-of-00005 cannot be reached .* well$"),
        ("403", InputError, r"^gs://drops/set/train-00002-of-00005 is refused .* the bucket$"),
    ],
)
def test_an_unreadable_shard_ends_the_ingest_with_one_line(drops, gcs, tmp_path, monkeypatch, kind, error, message):
    """In a worker of Beam, whose errors arrive as text."""
    monkeypatch.setattr(store, "RETRY_SECONDS", 3.0)
    gcs.inject(kind, r"GET .*train-00002-of-00005.*alt=media", times=10**9)
    begun = time.monotonic()
    with pytest.raises(error, match=message) as raised:
        ingest(["gs://drops/set"], str(tmp_path / "examples"), str(tmp_path / "quarantine"))
    assert "\n" not in str(raised.value)
    assert time.monotonic() - begun < 100  # Well above the 3 s, for a busy machine, and well below for ever.
    assert not list((tmp_path / "examples").glob("Split-*"))
