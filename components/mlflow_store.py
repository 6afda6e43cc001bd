"""MLflow's store: where runs and registered models are kept, its client, and its errors.

Only `library` imports MLflow. Everything that reaches a store goes through `session`, whose errors are one line.

Runs that start in one working directory share the SQLite file there that MLflow's own commands take by default, so that
runs are compared and the gate finds the champion.
"""

import contextlib
import errno
import functools
import http.client
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from marco_model import errors, store

FILE, ARTIFACTS = "mlflow.db", "mlartifacts"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's own variable, which names a store for every command that is not given another one."""
RUN_VARIABLE = "MARCO_TRACKING_URI"
"""The store of the run that a step belongs to, which `marco run` and a compiled package set for their steps."""
EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")
"""Tag by which MLflow 3 shows an experiment as trainings; without it, it shows an empty page for traces of agents."""
LOGIN_FIX = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it accepts"

_SQLITE = "sqlite:///"
_PROBE_SECONDS = 5.0
_FIRST_CONTACT_SECONDS = 60.0
_LOCK_SECONDS = 20.0
_UI_SECONDS = 120.0
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"}


def default_store(uri: str | None = None) -> str:
    """Returns the tracking URI of a run on this machine: `uri`, else `MLFLOW_TRACKING_URI`, else this directory's.

    A SQLite file is named from the root on, so that later commands find it from any directory.
    """
    uri = uri or os.environ.get(URI_VARIABLE) or f"{_SQLITE}{FILE}"
    file = sqlite_file(uri)
    return f"{_SQLITE}{file.resolve()}" if file else uri


def find_store(tracking: str = "") -> str:
    """Returns the tracking URI of an existing store: `tracking`, a URI or a run's folder, else the default one.

    A run's folder holds a store of its own if it was made before runs shared one, or names its store in `summary.json`.
    Raises `InputError` if the store is a SQLite file that does not exist.
    """
    if not tracking or store.is_remote(tracking):
        uri = default_store(tracking)
    else:
        summary = Path(tracking) / "summary.json"
        own = (Path(tracking) / FILE).is_file() or not summary.is_file()
        named = f"{_SQLITE}{Path(tracking) / FILE}" if own else store.read_json(str(summary))["tracking_uri"]
        uri = default_store(trust(named, str(summary)))
    file = sqlite_file(uri)
    if file and not file.is_file():
        raise errors.InputError(
            f"there is no MLflow store at {uri}; change to the directory where marco run was started, or give "
            "--tracking a run's folder or MLflow's URI"
        )
    return uri


def trust(uri: str, origin: str) -> str:
    """Returns `uri`, the tracking URI that a file `origin` names, if using it gives no credentials away.

    Whoever wrote the file chose the server. Raises `InputError` if MLflow would send it credentials of this
    environment, unless it is the run's own server or that of `MLFLOW_TRACKING_URI`. Databases count as such servers.
    """
    chosen = {os.environ.get(name, "").rstrip("/") for name in (URI_VARIABLE, RUN_VARIABLE)}
    if sqlite_file(uri) or uri.rstrip("/") in chosen:
        return uri
    if uri.startswith(("http://", "https://")):
        from mlflow.utils import credentials

        sent = vars(credentials.get_default_host_creds(uri))
        if not any(sent[name] for name in ("username", "password", "token", "aws_sigv4", "auth", "client_cert_path")):
            return uri
    raise errors.InputError(
        f"{origin} names MLflow at {uri}, which would get this environment's credentials for MLflow; if you trust that "
        f"server, set {URI_VARIABLE}={uri}"
    )


def sqlite_file(tracking_uri: str) -> Path | None:
    """Returns the file of a store in SQLite, None for another store."""
    return Path(tracking_uri.removeprefix(_SQLITE)) if tracking_uri.startswith(_SQLITE) else None


def artifact_location(tracking_uri: str) -> str | None:
    """Returns where a new experiment keeps its artifacts: `mlartifacts` beside a SQLite file; a server decides."""
    file = sqlite_file(tracking_uri)
    return (file.parent / ARTIFACTS).as_uri() if file else None


@functools.cache
def library() -> Any:
    """Returns the module `mlflow`, imported once, with its own output turned down and with our access to buckets."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Read when MLflow is imported.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    _register_bucket_artifacts()
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _register_bucket_artifacts() -> None:
    """Makes MLflow reach artifacts on `gs://` with the retries, checks and errors of `marco_model.store`.

    MLflow's own class uploads without a retry under google-cloud-storage 2, and does not check the length of what it
    reads.
    """
    from mlflow.store.artifact import artifact_repository_registry, gcs_artifact_repo

    class BucketArtifacts(gcs_artifact_repo.GCSArtifactRepository):  # type: ignore[misc]
        def __init__(self, artifact_uri: str, client: Any = None, **options: Any) -> None:
            super().__init__(artifact_uri, client or store.client(), **options)

        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
            store.upload(Path(local_file), self._uri(artifact_path, Path(local_file).name))

        def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
            folder = Path(local_dir)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                store.upload(path, self._uri(artifact_path, path.relative_to(folder).as_posix()))

        def list_artifacts(self, path: str | None = None) -> list[Any]:
            with store.reaching(self._uri(path)):
                return list(super().list_artifacts(path))

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            store.download(self._uri(remote_file_path), Path(local_path))

        def _uri(self, *parts: str | None) -> str:
            return "/".join([self.artifact_uri.rstrip("/"), *(part for part in parts if part)])

    artifact_repository_registry._artifact_repository_registry.register("gs", BucketArtifacts)


@functools.lru_cache(maxsize=8)
def connect(tracking_uri: str) -> Any:
    """Returns an `MlflowClient` of the store at `tracking_uri`.

    A new SQLite store gets its tables here. Several processes may do this at the same time. Raises `InputError` if the
    server does not answer or refuses this login, or if the URI holds credentials: it is kept with every model and run.
    """
    errors.refuse_credentials(tracking_uri, "the tracking URI")
    _probe(tracking_uri)
    file = sqlite_file(tracking_uri)
    if file and file.is_file():
        check_database(file, "restore it from a copy, or move it away and begin with an empty store")
    with reaching(tracking_uri), _first_contact(file):
        if file and not file.exists():
            # Aside, so that a full disk or a kill leaves no store with a part of its tables, which MLflow cannot use.
            with store.folder_aside(file) as folder:
                _open_client(f"{_SQLITE}{folder / file.name}")
                (folder / file.name).replace(file)
        return _open_client(tracking_uri)


def _open_client(tracking_uri: str) -> Any:
    """Returns the client of a store that answers; one in SQLite gets the tables that it lacks."""
    client = library().MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    client.search_experiments(max_results=1)
    if sqlite_file(tracking_uri):
        client.search_registered_models(max_results=1)
    return client


def check_database(file: Path, fix: str) -> None:
    """Raises `InputError`, with `fix`, for a SQLite file that is damaged, and for one that stays locked."""
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=_LOCK_SECONDS)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                raise sqlite3.DatabaseError(answer)
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise errors.InputError(
                f"another process has locked {file} for {_LOCK_SECONDS:.0f} s; end it, or wait until it ends"
            ) from error
        if errors.storage_fix(error) or "unable to open" in str(error):
            raise OSError(errno.EACCES, errors.one_line(error), str(file)) from error
        raise errors.InputError(f"{file} is damaged ({errors.one_line(error)}); {fix}") from error


@contextlib.contextmanager
def _first_contact(file: Path | None) -> Iterator[None]:
    """Keeps other processes waiting, since two that make the tables of one store at the same time both fail.

    `file`: the store's, whose folder is locked. The system takes the lock from a process that ends, however it ends.
    Where folders cannot be locked, or one stays locked for a minute, nothing is waited for.
    """
    lock = None
    with contextlib.suppress(BlockingIOError):
        lock = store.lock_path(file.parent, _FIRST_CONTACT_SECONDS) if file else None
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def session(tracking_uri: str) -> Iterator[Any]:
    """Yields the client of `connect`; what fails in the block is raised as `reaching` does."""
    client = connect(tracking_uri)
    with reaching(tracking_uri):
        yield client


def _probe(tracking_uri: str) -> None:
    """Asks a server once, with a short timeout: MLflow's own client retries for minutes before it gives up."""
    if not tracking_uri.startswith(("http://", "https://")):
        return
    try:
        # An error's status is an answer, too: a proxy in front may not pass /health on.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(tracking_uri.rstrip("/") + "/health", timeout=_PROBE_SECONDS).close()
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(tracking_uri, error) from error


def refused_host(answer: str) -> bool:
    """Whether a server's answer says that it takes no requests to this name of it (MLflow 3, `--allowed-hosts`)."""
    return "invalid host header" in answer.lower()


def _unreachable(tracking_uri: str, error: Exception) -> errors.InputError:
    fix = "see that its folder exists and can be written" if sqlite_file(tracking_uri) else "start it"
    if "mlflow db upgrade" in str(error):
        fix = f"make a copy of it, then run: mlflow db upgrade {tracking_uri}"
    elif refused_host(str(error)):
        fix = "add this host and port to --allowed-hosts of the server"
    elif re.search("error code 40[13]", str(error)):
        fix = LOGIN_FIX
    return errors.InputError(
        f"MLflow at {tracking_uri} failed: {_first_line(error)}; {fix}, or set another tracking URI"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


@contextlib.contextmanager
def reaching(tracking_uri: str) -> Iterator[None]:
    """Translates the errors of MLflow, its database and the network into one `InputError` that names the store.

    The errors of a bucket with artifacts (`marco_model.store.reaching`) are one line already and pass.
    """
    try:
        yield
    except (errors.InputError, errors.ClusterError):
        raise
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "mlflow":
            raise  # MLflow itself is missing: the command names the extra that brings it.
        raise errors.InputError(
            f"MLflow at {tracking_uri} needs the package {error.name} for its artifacts; install it (for s3://: boto3)"
        ) from error
    except Exception as error:
        if getattr(error, "error_code", None) in _REFUSALS and not refused_host(str(error)):
            raise errors.InputError(
                f"MLflow at {tracking_uri} refuses: {_first_line(error)}; fix what it names"
            ) from error
        root = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or root in {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}:
            raise _unreachable(tracking_uri, error) from error
        raise


def find_experiment(client: Any, tracking_uri: str, name: str, artifacts: str | None = None) -> str:
    """Returns the id of the experiment, which is created if it does not exist, in MLflow's view of trainings.

    `artifacts`: the URI below which it keeps models and figures. Raises `InputError` if it was deleted or keeps them
    elsewhere.
    """
    existing = client.get_experiment_by_name(name)
    if existing is None:
        location = artifacts or artifact_location(tracking_uri)
        with already_existing():
            client.create_experiment(name, location, tags=dict([EXPERIMENT_KIND]))
        existing = client.get_experiment_by_name(name)
    if existing.lifecycle_stage != "active":
        raise errors.InputError(f"MLflow experiment {name!r} was deleted; restore it or name another experiment")
    if artifacts and existing.artifact_location.rstrip("/") != artifacts.rstrip("/"):
        raise errors.InputError(
            f"MLflow experiment {name!r} keeps its artifacts at {existing.artifact_location}, and tracking.artifacts "
            f"is {artifacts}; leave that out, or name another experiment"
        )
    if EXPERIMENT_KIND[0] not in existing.tags:
        client.set_experiment_tag(existing.experiment_id, *EXPERIMENT_KIND)
    return str(existing.experiment_id)


def runs_page(tracking_uri: str) -> str:
    """Returns the path of the page in MLflow that lists the runs beside the latest one, in the view of trainings."""
    with session(tracking_uri) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        latest = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    page = f"/{latest[0].info.experiment_id}/runs" if latest else ""
    return f"#/experiments{page}?workflowType=machine_learning"


@contextlib.contextmanager
def ui_server(tracking_uri: str, port: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yields the address of MLflow's pages and what waits until their server ends; ends the server afterwards.

    The server is MLflow's own, for this machine alone and without telemetry, unless the store has one already. Raises
    `InputError` if it does not start.
    """
    if tracking_uri.startswith(("http://", "https://")):
        yield tracking_uri.rstrip("/"), lambda: None
        return
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile() as log, socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise errors.InputError(f"port {port} is taken; give another --port")
        # A session of its own, so that its workers end with it.
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(server, address, log)
            yield address, server.wait
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(_UI_SECONDS)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)


def _wait_for(server: subprocess.Popen[bytes], address: str, log: IO[bytes]) -> None:
    until = time.monotonic() + _UI_SECONDS
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            return
        time.sleep(0.1)
    if server.poll() is None:
        raise errors.InputError(f"MLflow's server has not answered for {_UI_SECONDS:.0f} s; try again")
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or [f"exit status {server.returncode}"]
    raise errors.InputError(f"MLflow's server did not start: {lines[-1]}; fix what it names")


@contextlib.contextmanager
def already_existing() -> Iterator[None]:
    """Ends the block without an error if what it makes exists, as when another process made it first."""
    try:
        yield
    except library().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
