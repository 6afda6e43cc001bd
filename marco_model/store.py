"""Bytes on this machine and in buckets: places, reading, writing, arrays, objects, transfers.

A place is a path of this machine or a URI on `gs://`, which is read and written with Google's own client, whose
requests are retried for up to `RETRY_SECONDS`. What fails is raised as one line: `InputError` for what the caller can
fix, `ClusterError` for a service that fails. Google's libraries are imported when they are needed. What concerns this
machine alone, such as files that appear only when complete, is in `marco_model.local_files` and can be had from here
too.
"""

import contextlib
import dataclasses
import functools
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from marco_model.errors import ClusterError, InputError, one_line, translated
from marco_model.local_files import (
    LOCK_FILE as LOCK_FILE,
    folder_aside as folder_aside,
    folder_of_aside as folder_of_aside,
    is_stream as is_stream,
    lock_path as lock_path,
    open_locked as open_locked,
    refuse_inputs as refuse_inputs,
    require_new_or_empty as require_new_or_empty,
    sole_writer as sole_writer,
    sync as sync,
    whole_directory as whole_directory,
    whole_file as whole_file,
)

if TYPE_CHECKING:
    import numpy as np

SCHEME = "gs://"
CONNECT_SECONDS, READ_SECONDS, RETRY_SECONDS = 10.0, 60.0, 120.0
_FIRST_WAIT_SECONDS = 1.0
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]")
_BLOCK_BYTES = 1 << 24
_TRANSFERS = 8

Item = TypeVar("Item")


# Places


def is_object(path: str) -> bool:
    """Returns whether `path` is a URI on `gs://`."""
    return path.startswith(SCHEME)


def is_remote(path: str) -> bool:
    """Returns whether `path` is a URI such as `gs://bucket/folder` or `s3://bucket/folder`."""
    return "://" in path


def absolute(path: str) -> str:
    """Returns a path of this machine from the root on, so that it outlives the working directory; a URI as it is."""
    return path if is_remote(path) else str(Path(path).resolve())


def local_path(path: str) -> Path:
    """Returns a path of this machine; raises `InputError` for the URI of a store that cannot be read."""
    if is_remote(path):
        scheme = path.partition("://")[0]
        raise InputError(f"{path!r}: {scheme}:// cannot be read; give gs://BUCKET/FOLDER, or a folder, here or mounted")
    return Path(path)


def parts(uri: str) -> tuple[str, str]:
    """Returns the bucket and the name of an object; raises `InputError` for a URI without a valid bucket."""
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{uri!r} names no bucket; write it as gs://BUCKET/FOLDER")
    return bucket, name


# Reading


def open_raw(path: str) -> BinaryIO:
    """Opens a file or an object for reading its bytes as they are stored, whatever its name ends in.

    All bytes of an object are of one generation. Raises `InputError` if there is no such object.
    """
    if is_object(path):
        return cast(BinaryIO, io.BufferedReader(_Reader(path), _BLOCK_BYTES))
    return local_path(path).open("rb")


def read_bytes(path: str, missing: str = "") -> bytes:
    """Returns the whole content of a file or an object.

    `missing`: if not empty, the message of the `InputError` that is raised if there is nothing at `path`.
    """
    if missing and not exists(path):
        raise InputError(missing)
    with open_raw(path) as file:
        return file.read()


def read_json(path: str, missing: str = "") -> dict[str, Any]:
    """Returns the JSON object in a file or an object of a bucket; raises `InputError` if it is damaged.

    `missing`: as for `read_bytes`; if it is empty, the result is empty if there is nothing at `path`.
    """
    if not missing and not exists(path):
        return {}
    with translated(InputError, f"{path} is damaged ({{}}); write it again", ValueError, TypeError, RecursionError):
        return dict(json.loads(read_bytes(path, missing)))


def exists(path: str) -> bool:
    """Returns whether there is a file or an object at `path`."""
    if is_object(path):
        with reaching(path):
            return bool(blob_at(path).exists(**patience()))
    return local_path(path).exists()


# Writing


def write_bytes(path: str, content: bytes) -> None:
    """Writes a whole file or object, which appears only when complete and replaces one of the same name."""
    if is_object(path):
        with reaching(path):
            blob_at(path).upload_from_string(content, "application/octet-stream", checksum="crc32c", **patience())
    else:
        with whole_file(local_path(path), "wb") as file:
            file.write(content)


# Arrays


def npz(values: Mapping[str, Any], *, compressed: bool = False) -> bytes:
    """Returns arrays by name as an NPZ file."""
    import numpy as np

    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **values)
    return content.getvalue()


def arrays(content: bytes) -> dict[str, "np.ndarray"]:
    """Returns the arrays in an NPZ file by name; if it is damaged, zipfile and NumPy raise many kinds of errors."""
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


# Objects


@dataclasses.dataclass(frozen=True)
class Object:
    """An object of a bucket: `size` in bytes, `modified` in seconds since 1970, `crc32c` in base64."""

    uri: str
    size: int
    modified: float
    generation: int
    crc32c: str


@functools.cache
def _google() -> Any:
    """Returns the package `google` after the import of its storage library, which imports `api_core` and `auth` too."""
    import google.cloud.storage.fileio

    return google


@functools.cache
def client() -> Any:
    """Returns Google's client with the credentials of the environment; without any, it reads what is public."""
    from requests.adapters import HTTPAdapter

    storage = _google().cloud.storage

    class Adapter(HTTPAdapter):
        def build_response(self, req: Any, resp: Any) -> Any:
            """Makes an answer shorter than announced a failure.

            urllib3 2 does so by itself; version 1.26 returns what arrived, which the library then takes for everything.
            """
            resp.enforce_content_length = True
            return super().build_response(req, resp)

    try:
        google_client = storage.Client()
    except _google().auth.exceptions.DefaultCredentialsError:
        google_client = storage.Client.create_anonymous_client()
    for scheme in ("http://", "https://"):
        google_client._http.mount(scheme, Adapter(pool_maxsize=32))  # The library's own advice for other transports.
    return google_client


def patience(retry_seconds: float | None = None) -> dict[str, Any]:
    """Returns the library's `timeout` and `retry` for a request, by default with retries for `RETRY_SECONDS`."""
    retry = _google().cloud.storage.retry.DEFAULT_RETRY.with_delay(initial=_FIRST_WAIT_SECONDS)
    retry = retry.with_timeout(RETRY_SECONDS if retry_seconds is None else retry_seconds)
    return {"timeout": (CONNECT_SECONDS, READ_SECONDS), "retry": retry}


def blob_at(uri: str) -> Any:
    """Returns the library's object for a URI, without a request to the service."""
    bucket, name = parts(uri)
    return client().bucket(bucket).blob(name)


def list_objects(prefix: str, retry_seconds: float | None = None) -> list[Object]:
    """Returns the objects whose URIs begin with `prefix`, in the order of their names."""
    bucket, name = parts(prefix)
    with reaching(prefix):
        blobs = list(client().list_blobs(bucket, prefix=name or None, **patience(retry_seconds)))
    return [
        Object(f"{SCHEME}{bucket}/{blob.name}", blob.size, blob.updated.timestamp(), blob.generation, blob.crc32c)
        for blob in blobs
    ]


def objects_below(folder: str) -> list[str]:
    """Returns the URIs of all objects below a folder."""
    return [item.uri for item in list_objects(folder.rstrip("/") + "/")]


class _Reader(io.RawIOBase):
    """Reads one generation of an object; when a block ends early, the library continues where it ended."""

    def __init__(self, uri: str) -> None:
        bucket, name = parts(uri)
        with reaching(uri):
            self._blob = client().bucket(bucket).get_blob(name, **patience())
        if self._blob is None:
            raise InputError(f"{uri} does not exist; fix the name")
        self._uri = uri
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._blob.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readall(self) -> bytes:
        return self._next(self._blob.size - self._position)

    def readinto(self, buffer: Any) -> int:
        data = self._next(min(len(buffer), self._blob.size - self._position))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, count: int) -> bytes:
        if count <= 0:
            return b""
        with reaching(self._uri):
            data = self._blob.download_as_bytes(
                start=self._position,
                end=self._position + count - 1,
                raw_download=True,
                if_generation_match=self._blob.generation,
                checksum=None,  # The service knows only that of the whole object.
                **patience(),
            )
        if len(data) != count:
            raise ClusterError(f"{self._uri}: {len(data)} of {count} requested bytes arrived; run again")
        self._position += count
        return bytes(data)


def create_object(uri: str) -> BinaryIO:
    """Opens a new object for writing; it appears, and replaces one of the same name, when it is closed.

    An object that is dropped, or whose `with` block ends by an exception, does not appear.
    """
    return cast(BinaryIO, _writer()(blob_at(uri), chunk_size=_BLOCK_BYTES, ignore_flush=True, **patience()))


@functools.cache
def _writer() -> Any:
    """Returns the library's writer without its habit of completing an upload that was given up."""

    class Writer(_google().cloud.storage.fileio.BlobWriter):  # type: ignore[misc]
        def __del__(self) -> None:
            """Leaves the upload to the service, which forgets it; the finalizer of `io` would close, and so publish."""

        def __exit__(self, kind: object, *_: object) -> None:
            if kind is None:
                self.close()

    return Writer


def upload(path: Path, uri: str) -> None:
    """Writes a file as an object; the service compares the checksum."""
    with reaching(uri):
        blob_at(uri).upload_from_filename(str(path), checksum="crc32c", **patience())


def download(uri: str, path: Path) -> None:
    """Writes an object into a file, whose folder is made if missing; the file appears if the checksum is right."""
    with reaching(uri), whole_file(path, "wb") as target:
        blob_at(uri).download_to_file(target, raw_download=True, checksum="crc32c", **patience())


def copy_objects(pairs: Sequence[tuple[str, str]]) -> None:
    """Copies objects from URI to URI within the service, several at once."""

    def copy(pair: tuple[str, str]) -> None:
        with reaching(pair[1]):
            copy_object(*map(blob_at, pair))

    in_parallel(copy, pairs)


def copy_object(source: Any, target: Any, **conditions: Any) -> None:
    """Copies one of the library's objects to another within the service; raises the library's own errors.

    `conditions` are the library's, such as `if_generation_match=0` for a target that must not exist.
    """
    token, _, _ = target.rewrite(source, **conditions, **patience())
    while token:
        token, _, _ = target.rewrite(source, token=token, **conditions, **patience())


def delete_objects(uris: Sequence[str]) -> None:
    """Deletes objects, several at once; an object that does not exist is fine."""

    def delete(uri: str) -> None:
        with reaching(uri), contextlib.suppress(_google().api_core.exceptions.NotFound):
            blob_at(uri).delete(**patience())

    in_parallel(delete, uris)


def in_parallel(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Calls `work` with each item, several at once; raises the first error in the order of the items."""
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        for _ in pool.map(work, items):
            pass


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Translates the errors of Google's library into one line that names `uri`.

    Raises:
        InputError: the object or bucket does not exist, or access is refused.
        ClusterError: the service failed for as long as it was tried, or the object changed meanwhile.
    """
    exceptions, auth_error = _google().api_core.exceptions, _google().auth.exceptions.GoogleAuthError
    try:
        yield
    except (InputError, ClusterError):
        raise
    except Exception as error:
        cause = error.cause if isinstance(error, exceptions.RetryError) and error.cause else error
        if isinstance(cause, exceptions.NotFound):
            raise InputError(f"{uri} does not exist ({_line(cause)}); fix the name or create the bucket") from error
        if isinstance(cause, (exceptions.Forbidden, exceptions.Unauthorized)) or (
            isinstance(cause, auth_error) and not getattr(cause, "retryable", False)
        ):
            raise InputError(f"{uri} is refused ({_line(cause)}); give the account access to the bucket") from error
        if isinstance(cause, exceptions.PreconditionFailed):
            raise ClusterError(f"{uri} was changed by another process while it was used; run again") from error
        library = type(cause).__module__.partition(".")[0] in ("google", "requests", "urllib3")
        if library or isinstance(cause, ConnectionError):
            raise ClusterError(
                f"{uri} cannot be reached or fails, with retries for up to {RETRY_SECONDS:.0f} s ({_line(cause)}); run "
                "again when the service is well"
            ) from error
        raise


def _line(error: Exception) -> str:
    """Returns the error's text in one line, without the request's address and what the library expected of it."""
    text = re.sub(r" (GET|POST|PUT|DELETE) http\S+|: \('Request failed with.*", "", str(error), flags=re.DOTALL)
    return one_line(text) if text.strip() else type(error).__name__
