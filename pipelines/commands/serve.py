"""`marco serve`: a classifier as a server."""

import os
import re
import socket
from typing import Annotated

import typer

from marco_model.errors import InputError
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
        float,
        typer.Option(
            min=0, help="How long a batch that is not full waits for more images while several clients send requests."
        ),
    ] = 5.0,
    max_instances: Annotated[int, typer.Option(min=1, help="Images in one request.")] = 128,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Images that may wait; beyond that a request gets 503.")
    ] = 512,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 50_000_000,
    max_image_mb: Annotated[int, typer.Option(min=1, help="MiB of an encoded image.")] = 20,
    max_body_mb: Annotated[int, typer.Option(min=1, help="MiB of a request's body.")] = 64,
    max_inflight_mb: Annotated[
        int, typer.Option(min=1, help="MiB of all bodies not yet answered; beyond that a request gets 503.")
    ] = 256,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of the model; 0 takes one per core that the process may use.")
    ] = 0,
    grace_seconds: Annotated[int, typer.Option(min=0, help="Time to answer the requests under way at SIGTERM.")] = 25,
    access_log: Annotated[bool, typer.Option(help="Log one line per request.")] = False,
) -> None:
    """Serve a classifier over HTTP, by KServe's V1 and V2 protocols and Vertex AI's routes.

    How to run it as a container, and what requests and answers look like: docs/serving.md.

    Example: marco serve --model models/released --port 8080
    """
    from marco_scoring.serving import classify, protocols

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(f"--name is {name!r}; give letters, digits and ._- only")
    vertex = protocols.vertex_container(os.environ)
    host = host or ("127.0.0.1" if vertex.port is None else "0.0.0.0")
    port = port or vertex.port or PORT
    _check_address(host, port)
    if max_inflight_mb < max_body_mb:
        raise InputError(
            f"--max-inflight-mb is {max_inflight_mb}, under --max-body-mb {max_body_mb}; give as much or more"
        )
    limits = classify.Limits(
        max_instances=max_instances,
        max_body_bytes=max_body_mb * classify.MEBIBYTE,
        max_image_bytes=max_image_mb * classify.MEBIBYTE,
        max_pixels=max_pixels,
        max_inflight_bytes=max_inflight_mb * classify.MEBIBYTE,
    )
    directory = score.model_directory(model or vertex.storage_uri, "serving")

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads or classify.cores())
    tf.config.threading.set_inter_op_parallelism_threads(threads or classify.cores())
    from marco_model.load import open_classifier
    from marco_scoring.serving import server

    classifier = open_classifier(directory)
    classify.warm_up(classifier, max_batch)
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


def _check_address(host: str, port: int) -> None:
    """Raises `InputError` if nothing can listen at this address, before the model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from error
