"""`marco serve`: a classifier as a server."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import sys
import warnings
from typing import Annotated

import typer

from pipelines.commands import score

PORT = 8080


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's folder or gs:// URI. Without it: AIP_STORAGE_URI's, or else the published classifier."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The model's name in the routes.")] = "marco",
    host: Annotated[
        str | None, typer.Option(help="Address to listen at. [default: 127.0.0.1; on Vertex AI 0.0.0.0]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"[default: AIP_HTTP_PORT, or else {PORT}]")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
    batch_wait_ms: Annotated[
        float, typer.Option(min=0, help="How long a batch that is not full waits for more while several clients ask.")
    ] = 5.0,
    max_instances: Annotated[int, typer.Option(min=1, help="Images in one request.")] = 128,
    max_waiting: Annotated[int, typer.Option(min=1, help="Images waiting; above it a request gets 503.")] = 512,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 50_000_000,
    max_image_mb: Annotated[int, typer.Option(min=1, help="MiB of an encoded image.")] = 20,
    max_body_mb: Annotated[int, typer.Option(min=1, help="MiB of a request's body.")] = 64,
    max_inflight_mb: Annotated[
        int, typer.Option(min=1, help="MiB of all bodies not yet answered; above it a request gets 503.")
    ] = 256,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of the model; 0 takes one a core that the process may use.")
    ] = 0,
    grace_seconds: Annotated[int, typer.Option(min=0, help="Time to answer what is under way at SIGTERM.")] = 25,
    access_log: Annotated[bool, typer.Option(help="Log a line a request.")] = False,
) -> None:
    """Serve a classifier over HTTP, by KServe's V1 and V2 protocols and Vertex AI's routes.

    Needs Python 3.11 or later. What runs it as a container, and what requests and answers look like: docs/serving.md.

    Example: marco serve --model models/released --port 8080
    """
    _require_kserve()
    from marco_model.errors import InputError
    from marco_scoring.serving.classify import MEBIBYTE, Limits, cores
    from marco_scoring.serving.protocols import vertex_container

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(f"--name is {name!r}; letters, digits and ._- are what a route can have")
    vertex = vertex_container(os.environ)
    host = host or ("127.0.0.1" if vertex.port is None else "0.0.0.0")
    port = port or vertex.port or PORT
    _check_address(host, port)
    if max_inflight_mb < max_body_mb:
        raise InputError(
            f"--max-inflight-mb is {max_inflight_mb}, under --max-body-mb {max_body_mb}; give as much or more"
        )
    limits = Limits(
        max_instances, max_body_mb * MEBIBYTE, max_image_mb * MEBIBYTE, max_pixels, max_inflight_mb * MEBIBYTE
    )
    found = score.model_directory(model or vertex.storage_uri, "serving")

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads or cores())
    tf.config.threading.set_inter_op_parallelism_threads(threads or cores())
    from marco_model.load import load
    from marco_scoring.serving.classify import warm_up

    classifier = load(found)
    warm_up(classifier, max_batch)
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # Which KServe answers with.
    # KServe reads the command line, for options of its own, when it is imported.
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        from marco_scoring.serving import server
    finally:
        sys.argv = arguments
    typer.echo(f"serving {classifier.name} at http://{host}:{port}/v1/models/{name}:predict", err=True)
    options = server.ServerOptions(
        name=name,
        host=host,
        port=port,
        max_batch=max_batch,
        batch_wait_seconds=batch_wait_ms / 1000,
        max_waiting=max_waiting,
        grace_seconds=grace_seconds,
        access_log=access_log,
        predict_route=vertex.predict_route,
        health_route=vertex.health_route,
    )
    server.serve(classifier, options, limits)


def _require_kserve() -> None:
    """Raises `InputError` where KServe's library cannot be."""
    from marco_model.errors import InputError

    if importlib.util.find_spec("kserve"):
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info < (3, 11):
        raise InputError(
            f"marco serve needs Python 3.11 or later, and this is {version}, whose TFX excludes kserve; run it from "
            "the image (make image), or serve the published folder with TensorFlow Serving: docs/serving.md"
        )
    raise InputError(f"marco serve needs the package kserve, which this Python {version} lacks; run make env")


def _check_address(host: str, port: int) -> None:
    """Raises `InputError` where nothing can listen at this address, before the model is loaded."""
    from marco_model.errors import InputError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from error
