"""`marco serve`: a classifier as a server."""

import dataclasses
import os
import re
import socket
from typing import TYPE_CHECKING, Annotated

import typer

import marco_model
from marco_model.errors import InputError
from pipelines.commands import options, score

if TYPE_CHECKING:
    from marco_scoring.serving import classify

PORT = 8080


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """How images of several requests are scored together."""

    max_batch: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8
    batch_wait_ms: Annotated[
        float,
        typer.Option(
            min=0, help="How long a batch that is not full waits for more images while several clients send requests."
        ),
    ] = 5.0
    max_waiting: Annotated[int, typer.Option(min=1, help="Images that may wait; beyond that a request gets 503.")] = 512
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of the model; 0 takes one per core that the process may use.")
    ] = 0


@dataclasses.dataclass(frozen=True)
class LimitOptions:
    """What a request may ask for."""

    max_instances: Annotated[int, typer.Option(min=1, help="Images in one request.")] = 128
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 50_000_000
    max_image_mb: Annotated[int, typer.Option(min=1, help="MiB of an encoded image.")] = 20
    max_body_mb: Annotated[int, typer.Option(min=1, help="MiB of a request's body.")] = 64
    max_inflight_mb: Annotated[
        int, typer.Option(min=1, help="MiB of all bodies not yet answered; beyond that a request gets 503.")
    ] = 256

    def limits(self) -> "classify.Limits":
        """Returns them as the server takes them; raises `InputError` if no body of the largest size fits."""
        from marco_scoring.serving import classify

        if self.max_inflight_mb < self.max_body_mb:
            raise InputError(
                f"--max-inflight-mb is {self.max_inflight_mb}, under --max-body-mb {self.max_body_mb}; give as much or "
                "more"
            )
        return classify.Limits(
            max_instances=self.max_instances,
            max_body_bytes=self.max_body_mb * classify.MEBIBYTE,
            max_image_bytes=self.max_image_mb * classify.MEBIBYTE,
            max_pixels=self.max_pixels,
            max_inflight_bytes=self.max_inflight_mb * classify.MEBIBYTE,
        )


@options.grouped
def serve(
    *,
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
    batching: BatchOptions,
    limiting: LimitOptions,
    grace_seconds: Annotated[int, typer.Option(min=0, help="Time to answer the requests under way at SIGTERM.")] = 25,
    access_log: Annotated[bool, typer.Option(help="Log one line per request.")] = False,
) -> None:
    """Serve a classifier over HTTP, by KServe's V1 and V2 protocols and Vertex AI's routes.

    How to run it as a container, and what requests and answers look like: docs/serving.md.

    Example: marco serve --model models/released --port 8080
    """
    from marco_scoring.serving import classify, protocols, server

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(f"--name is {name!r}; give letters, digits and ._- only")
    vertex = protocols.vertex_container(os.environ)
    host = host or ("127.0.0.1" if vertex.port is None else "0.0.0.0")
    port = port or vertex.port or PORT
    _check_address(host, port)
    limits = limiting.limits()
    directory = score.model_directory(model or vertex.storage_uri, "serving")

    import joblib
    import tensorflow as tf

    # TensorFlow by itself takes a thread for each core of the machine. In a container limited to two cores of 64 these
    # compete, and all are stopped once the share is used up. joblib knows the limits of containers.
    threads = batching.threads or joblib.cpu_count()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    classifier = marco_model.open_classifier(directory)
    classify.warm_up(classifier, batching.max_batch)
    typer.echo(f"serving {classifier.name} at http://{host}:{port}/v1/models/{name}:predict", err=True)
    settings = server.ServerOptions(
        name=name,
        host=host,
        port=port,
        max_batch=batching.max_batch,
        batch_wait_seconds=batching.batch_wait_ms / 1000,
        max_waiting=batching.max_waiting,
        grace_seconds=grace_seconds,
        access_log=access_log,
        predict_route=vertex.predict_route,
        health_route=vertex.health_route,
    )
    server.serve(classifier, settings, limits)


def _check_address(host: str, port: int) -> None:
    """Raises `InputError` if nothing can listen at this address, before the model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from error
