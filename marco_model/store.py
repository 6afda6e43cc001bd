"""Bytes on this machine and in buckets: open, list, copy, create, delete, and files that appear only when complete.

Beam is imported only for stores other than `gs://`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from marco_model.errors import ClusterError, InputError, one_line

SCHEME = "gs://"
CONNECT_SECONDS, READ_SECONDS, RETRY_SECONDS = 10.0, 60.0, 120.0
_FIRST_WAIT_SECONDS = 1.0
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]")
_BLOCK_BYTES = 1 << 24
_TRANSFERS = 8


@dataclasses.dataclass(frozen=True)
class Object:
    """An object of a bucket: URI, bytes, when it was written (seconds since 1970), generation, CRC-32C in base64."""

    uri: str
    size: int
    modified: float
    generation: int
    crc32c: str


def is_object(path: str) -> bool:
    """Tells whether `path` is a URI of this kind of store."""
    return path.startswith(SCHEME)


@functools.cache
def client() -> Any:
    """Returns the client, with the credentials of the environment; without any, what is public can be read."""
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    try:
        made = storage.Client()
    except DefaultCredentialsError:
        made = storage.Client.create_anonymous_client()
    for scheme in ("http://", "https://"):
        made._http.mount(scheme, _adapter())  # The library's own advice for other transports.
    return made


def _adapter() -> Any:
    """Returns a transport of requests that takes an answer shorter than announced for the failure that it is.

    urllib3 2 does so by itself; version 1.26 gives back what came, which the library then takes for all.
    """
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool

    class Whole(HTTPResponse):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"enforce_content_length": True, **options})

    class Pool(HTTPConnectionPool):
        ResponseCls = Whole

    class SecurePool(HTTPSConnectionPool):
        ResponseCls = Whole

    adapter = HTTPAdapter(pool_maxsize=32)
    adapter.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
    return adapter


def patience(retry_seconds: float | None = None) -> dict[str, Any]:
    """Returns `timeout` and `retry` for a request of the library; see above."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=_FIRST_WAIT_SECONDS)
    retry = retry.with_timeout(RETRY_SECONDS if retry_seconds is None else retry_seconds)
    return {"timeout": (CONNECT_SECONDS, READ_SECONDS), "retry": retry}


def blob_at(uri: str) -> Any:
    """Returns the library's object for a URI; asks nothing of the service."""
    bucket, name = parts(uri)
    return client().bucket(bucket).blob(name)


def parts(uri: str) -> tuple[str, str]:
    """Returns the bucket and the name of an object; raises `InputError` where the URI names no bucket."""
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{uri!r} names no bucket that can be; write it as gs://BUCKET/FOLDER")
    return bucket, name


def list_objects(prefix: str, retry_seconds: float | None = None) -> list[Object]:
    """Returns the objects whose URIs begin with `prefix`, in the order of their names."""
    bucket, name = parts(prefix)
    with reaching(prefix):
        found = list(client().list_blobs(bucket, prefix=name or None, **patience(retry_seconds)))
    return [
        Object(f"{SCHEME}{bucket}/{blob.name}", blob.size, blob.updated.timestamp(), blob.generation, blob.crc32c)
        for blob in found
    ]


def object_exists(uri: str) -> bool:
    """Tells whether there is an object of this name."""
    with reaching(uri):
        return bool(blob_at(uri).exists(**patience()))


def open_object(uri: str) -> BinaryIO:
    """Opens an object for reading its bytes as they are stored.

    What is read is one generation of it from the first byte to the last. Raises `InputError` where there is none.
    """
    bucket, name = parts(uri)
    with reaching(uri):
        blob = client().bucket(bucket).get_blob(name, **patience())
    if blob is None:
        raise InputError(f"{uri} does not exist; mend the name")
    return cast(BinaryIO, io.BufferedReader(_Reader(blob, uri), _BLOCK_BYTES))


def create_object(uri: str) -> BinaryIO:
    """Opens a new object for writing; it appears, and replaces one of its name, when it is closed.

    One that is dropped, or that a `with` leaves by an exception, does not appear.
    """
    return cast(BinaryIO, _writer()(blob_at(uri), chunk_size=_BLOCK_BYTES, ignore_flush=True, **patience()))


@functools.cache
def _writer() -> Any:
    """Returns the library's writer without what ends an upload that nobody asked to end."""
    from google.cloud.storage.fileio import BlobWriter

    class Writer(BlobWriter):  # type: ignore[misc]
        def __del__(self) -> None:
            """Leaves the upload to the service, which forgets it; the finalizer of `io` would close, and so publish."""

        def __exit__(self, kind: object, *_: object) -> None:
            if kind is None:
                self.close()

    return Writer


def copy_objects(pairs: Sequence[tuple[str, str]]) -> None:
    """Copies objects from URI to URI within the service, several at once."""
    _each(_copy, pairs)


def delete_objects(uris: Sequence[str]) -> None:
    """Deletes objects, several at once; one that is gone already is fine."""
    _each(_delete, uris)


def objects_below(folder: str) -> list[str]:
    """Returns the URIs of all objects below a folder."""
    return [item.uri for item in list_objects(folder.rstrip("/") + "/")]


def _copy(pair: tuple[str, str]) -> None:
    source, target = map(blob_at, pair)
    with reaching(pair[1]):
        token, _, _ = target.rewrite(source, **patience())
        while token:
            token, _, _ = target.rewrite(source, token=token, **patience())


def _delete(uri: str) -> None:
    from google.api_core.exceptions import NotFound

    with reaching(uri), contextlib.suppress(NotFound):
        blob_at(uri).delete(**patience())


def _each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        for _ in pool.map(work, items):
            pass


def upload(path: Path, uri: str) -> None:
    """Writes a file as an object; the service compares the checksum."""
    with reaching(uri):
        blob_at(uri).upload_from_filename(str(path), checksum="crc32c", **patience())


def download(uri: str, path: Path) -> None:
    """Writes an object into a file, in a folder made if missing, and compares the checksum."""
    import base64

    import google_crc32c

    path.parent.mkdir(parents=True, exist_ok=True)
    with open_object(uri) as source, path.open("wb") as target:
        told = cast(_Reader, cast(io.BufferedReader, source).raw).crc32c
        checksum = google_crc32c.Checksum()
        while block := source.read(1 << 20):
            checksum.update(block)
            target.write(block)
    if told != base64.b64encode(checksum.digest()).decode():
        raise ClusterError(f"{uri} arrived damaged: its CRC-32C is not {told}; run again")


class _Reader(io.RawIOBase):
    """One generation of an object; the library goes on with a block that ends early where it ended."""

    def __init__(self, blob: Any, uri: str) -> None:
        self.blob = blob
        self.crc32c = blob.crc32c
        self._uri = uri
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.blob.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readall(self) -> bytes:
        return self._next(self.blob.size - self._position)

    def readinto(self, buffer: Any) -> int:
        data = self._next(min(len(buffer), self.blob.size - self._position))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, wanted: int) -> bytes:
        if wanted <= 0:
            return b""
        with reaching(self._uri):
            data = self.blob.download_as_bytes(
                start=self._position,
                end=self._position + wanted - 1,
                raw_download=True,
                if_generation_match=self.blob.generation,
                checksum=None,  # The service knows only that of the whole object.
                **patience(),
            )
        if len(data) != wanted:
            raise ClusterError(f"{self._uri}: {len(data)} bytes came where {wanted} were asked for; run again")
        self._position += wanted
        return bytes(data)


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turns what the library raises into one line that names `uri`.

    Raises:
        InputError: what was asked for is not there, or not allowed.
        ClusterError: the service failed for as long as it was tried.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    try:
        yield
    except (InputError, ClusterError):
        raise
    except Exception as error:
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        if isinstance(cause, exceptions.NotFound):
            raise InputError(f"{uri} does not exist ({_line(cause)}); mend the name or create the bucket") from error
        if isinstance(cause, (exceptions.Forbidden, exceptions.Unauthorized)) or (
            isinstance(cause, GoogleAuthError) and not getattr(cause, "retryable", False)
        ):
            raise InputError(f"{uri} is refused ({_line(cause)}); give the account access to the bucket") from error
        if isinstance(cause, exceptions.PreconditionFailed):
            raise ClusterError(f"{uri} was changed by another while it was used; run again") from error
        library = type(cause).__module__.partition(".")[0] in ("google", "urllib3")
        if library or isinstance(cause, (ConnectionError, RequestException)):
            raise ClusterError(
                f"{uri} cannot be reached or fails, with retries for up to {RETRY_SECONDS:.0f} s ({_line(cause)}); run "
                "again when the service is well"
            ) from error
        raise


def _line(error: Exception) -> str:
    """Returns the error's text in one line, without the request's address and what the library expected of it."""
    text = re.sub(r" (GET|POST|PUT|DELETE) http\S+|: \('Request failed with.*", "", str(error), flags=re.DOTALL)
    return one_line(text) if text.strip() else type(error).__name__


def is_remote(path: str) -> bool:
    """Tells whether `path` is a URI such as `gs://bucket/folder`."""
    return "://" in path


def absolute(path: str) -> str:
    """Returns a path of this machine from its root on, whatever the working directory is later; a URI as it is."""
    return path if is_remote(path) else str(Path(path).resolve())


def open_raw(path: str) -> BinaryIO:
    """Opens a file for reading its bytes as they are, whatever its name ends in."""
    if is_object(path):
        return open_object(path)
    if not is_remote(path):
        return Path(path).open("rb")
    from apache_beam.io.filesystem import CompressionTypes

    return cast(BinaryIO, file_systems(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_bytes(path: str) -> bytes:
    """Returns a whole file."""
    with open_raw(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Tells whether a file is there."""
    if is_object(path):
        return object_exists(path)
    if not is_remote(path):
        return Path(path).exists()
    return bool(file_systems(path).exists(path))


def file_systems(path: str) -> Any:
    """Returns Beam's file systems; raises `InputError` where they can't read the scheme of the URI `path`."""
    from apache_beam.io.filesystems import FileSystems

    scheme = path.partition("://")[0]
    try:
        FileSystems.get_filesystem(path)
        known = scheme != "s3"  # Beam's needs boto3, which nothing else here does, and options of its own.
    except ValueError:
        known = False
    if not known:
        raise InputError(f"{path!r}: {scheme}:// cannot be read; give gs://BUCKET/FOLDER, or a folder, here or mounted")
    return FileSystems


@contextlib.contextmanager
def whole_file(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a new file of this machine that appears at `path` only when the block ends without an error.

    It is written beside `path` under a name of its own, so that two processes never write into one file, and then
    renamed over what is there. Folders are made. `mode`: `w` for UTF-8 text with `\\n` at the ends of lines, or `wb`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with aside.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_directory(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `path` when the block ends without an error, else deleted.

    Raises `OSError` where `path` is a folder that is not empty by then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.mkdir()
    try:
        yield aside
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
