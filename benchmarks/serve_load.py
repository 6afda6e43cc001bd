"""`marco serve` under concurrent clients that also send bad requests, on all cores and with one thread.

Each client is a thread that sends one request after the other over one connection: an image by V1 or V2, or, in a share
`--bad` of the cases, something that the server must refuse: a cut image, text that is not base64, an empty image, a
header of a billion pixels, a good and a bad instance together, text that is not JSON. Every answer is checked: a good
image must get the scores that it got alone, and a bad one its error and its status. Memory is the server's resident
set, read every second. It counts as flat if its mean over the last quarter is at most 5 % above that over the second
quarter; the first quarter is for warming up. The last line compares images per second with those of the same server
with `--threads 1`. The exit status is 1 if an answer was wrong, the server ended, or memory was not flat.

With `--swaps`, the clients send good requests alone, while so many versions of `--model` are published in a folder that
the server follows; nothing is compared, and the exit status is 1 if a request failed.

    python -m benchmarks.serve_load --model models/released --seconds 300
"""

import base64
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests

import benchmarks
from marco_model import model_directory, store

V1, V2 = "/v1/models/marco:predict", "/v2/models/marco/infer"
FLAT = 0.05
TOLERANCE = 1e-3
"""Of scores: a small network amplifies what additions in another order change."""
BILLION_PIXELS = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + (40_000 << 32 | 25_000).to_bytes(8, "big") + bytes(100)


class ServerProcess:
    """A running server: `url` is its root, `process` the process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self._log = log

    def output(self) -> str:
        """Returns everything that it has written so far."""
        return self._log.read_text(errors="replace")

    def memory(self) -> int:
        """Returns its resident set size in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the server has ended")

    def wait_until_ready(self, route: str, seconds: float) -> None:
        """Returns once `route` answers 200; raises `RuntimeError` with the server's output if it never does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.url + route, timeout=5).ok:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"not ready within {seconds} s, status {self.process.poll()}:\n{self.output()}")

    def end(self, seconds: float = 60) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.terminate()
        return self.process.wait(seconds)


def free_port() -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(
    *options: str, environment: dict[str, str] | None = None, ready: str = "/v1/models/marco", seconds: float = 300
) -> Iterator[ServerProcess]:
    """Runs `marco serve` with `options` at a free port until the block ends; enters it once `ready` answers 200.

    If `environment` sets `AIP_HTTP_PORT`, that port is used.
    """
    vertex_port = (environment or {}).get("AIP_HTTP_PORT")
    port = int(vertex_port or free_port())
    command = [sys.executable, "-m", "pipelines.cli", "serve", *options]
    command += [] if vertex_port else ["--port", str(port)]
    variables = {**os.environ, **(environment or {})}
    with (
        benchmarks.scratch() as folder,
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=variables) as process,
    ):
        server = ServerProcess(port, process, folder / "log")
        try:
            server.wait_until_ready(ready, seconds)
            yield server
        finally:
            process.kill()


class Request(NamedTuple):
    """A request and its expected answer: the status, and for each instance its scores, or None for an error."""

    route: str
    body: bytes
    headers: dict[str, str]
    status: int
    expected: list[np.ndarray | None]


def _json_request(route: str, content: Any, expected: list[np.ndarray | None]) -> Request:
    return Request(route, json.dumps(content).encode(), {"Content-Type": "application/json"}, 200, expected)


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def v1(*images: bytes) -> dict[str, Any]:
    """Returns the document of a V1 request for encoded images."""
    return {"instances": [{"image_bytes": {"b64": _base64(image)}} for image in images]}


def good_requests(images: list[bytes], scores: list[np.ndarray]) -> list[Request]:
    """Returns requests of one image each, by V1, by V2 in base64 and by V2 in bytes."""
    good = []
    for image, row in zip(images, scores, strict=True):
        tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
        good.append(_json_request(V1, v1(image), [row]))
        good.append(_json_request(V2, {"inputs": [{**tensor, "data": [_base64(image)]}]}, [row]))
        tail = len(image).to_bytes(4, "little") + image
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        good.append(Request(V2, head + tail, headers, 200, [row]))
    return good


def bad_requests(image: bytes, scores: np.ndarray) -> list[Request]:
    """Returns requests that must be refused, as a whole or in part."""
    cut = image[: len(image) // 3]
    contents = [v1(cut), v1(b""), v1(BILLION_PIXELS), {"instances": [{"b64": "no base64!"}]}, {"instances": [7]}]
    bad = [_json_request(V1, content, [None]) for content in contents]
    bad.append(_json_request(V1, v1(image, cut), [scores, None]))
    not_json = bad[0]._replace(body=b'{"instances": [', status=400, expected=[])
    return [*bad, not_json, not_json._replace(route=V2)]


def predict(url: str, *images: bytes) -> list[dict[str, Any]]:
    """Returns the V1 predictions of encoded images."""
    answer = requests.post(url + V1, json=v1(*images), timeout=600)
    answer.raise_for_status()
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def difference(request: Request, status: int, body: bytes) -> str | None:
    """Returns what is wrong with an answer, or None."""
    message = f"status {status} for {request.status}: {body[:200]!r}"
    if status != request.status:
        return message
    try:
        answer = json.loads(body)
        if status != 200:
            return None if "error" in answer else message
        rows = answer["predictions"] if request.route == V1 else _rows(answer["outputs"])
        if len(rows) != len(request.expected):
            return f"{len(rows)} answers for {len(request.expected)} images"
        for row, scores in zip(rows, request.expected, strict=True):
            if (scores is None) != bool(row.get("error")):
                return f"{row} for {scores}"
            if scores is not None and not np.allclose(row["scores"], scores, rtol=0, atol=TOLERANCE):
                return f"scores {row['scores']} for {scores.tolist()}"
    except (ValueError, LookupError, TypeError, AttributeError):  # Not JSON, or not a document of the protocol.
        return message
    return None


def _rows(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name = {tensor["name"]: np.reshape(tensor["data"], tensor["shape"]) for tensor in tensors}
    return [
        {"scores": scores, "error": str(error)}
        for scores, error in zip(by_name["scores"], by_name["error"], strict=True)
    ]


def publish(model: Path, folder: Path, number: int) -> None:
    """Puts a copy of `model` into `folder`, as the version `number` with the name `version-NUMBER`, in one step."""
    with store.whole_directory(folder / str(number)) as aside:
        shutil.copytree(model, aside, dirs_exist_ok=True)
        record = aside / model_directory.METADATA
        record.write_text(json.dumps({**json.loads(record.read_text()), "name": f"version-{number}"}))


@contextlib.contextmanager
def publishing(model: Path, folder: Path, count: int, seconds: float) -> Iterator[None]:
    """Publishes `count` further versions of `model` in `folder`, spread over so many seconds, within the context."""
    ended = threading.Event()

    def run() -> None:
        for number in range(2, count + 2):
            if ended.wait(seconds / (count + 1)):
                return
            publish(model, folder, number)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield
        finally:
            ended.set()
            running.result()


@dataclasses.dataclass
class Load:
    """The outcome of a load: wrong answers, seconds of each good and of each bad request, memory per second."""

    seconds: float = 0.0
    wrong: list[str] = dataclasses.field(default_factory=list)
    latencies: list[float] = dataclasses.field(default_factory=list)
    bad_latencies: list[float] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)

    @property
    def images_a_second(self) -> float:
        """Good requests, of one image each, per second."""
        return len(self.latencies) / self.seconds

    @property
    def growth(self) -> float:
        """Growth of memory from the second quarter to the last, as a share; 0 for a load that was too short."""
        quarter = len(self.memory) // 4
        if not quarter:
            return 0.0
        return float(np.mean(self.memory[-quarter:]) / np.mean(self.memory[quarter : 2 * quarter])) - 1

    def summary(self) -> str:
        """Returns the outcome in a few lines of text."""
        p50, p90, p99 = (1000 * np.percentile(self.latencies or [0], [50, 90, 99])).round(1)
        good, bad = len(self.latencies), len(self.bad_latencies)
        lines = [
            f"{good} good and {bad} bad requests in {self.seconds:.0f} s, {len(self.wrong)} wrong answers",
            f"{self.images_a_second:.2f} images/s; latency p50 {p50} ms, p90 {p90} ms, p99 {p99} ms",
        ]
        if self.memory:
            low, high, last = (size >> 20 for size in (min(self.memory), max(self.memory), self.memory[-1]))
            lines.append(f"memory {low} to {high} MiB, {last} at the end; growth {self.growth:+.1%} (see --help)")
        lines += [f"{count} times {answer}" for answer, count in collections.Counter(self.wrong).most_common(5)]
        return "\n".join(lines)


def load(
    server: ServerProcess, good: list[Request], bad: list[Request], clients: int, bad_share: float, seconds: float
) -> Load:
    """Puts `server` under load and watches its memory."""
    outcome, begun = Load(), time.monotonic()

    def send_until_the_end(seed: int) -> None:
        chance = np.random.default_rng(seed)
        with requests.Session() as session:
            session.trust_env = False  # Saves looking for a proxy and a password for each request.
            while time.monotonic() < begun + seconds:
                is_bad = chance.random() < bad_share
                kind = bad if is_bad else good
                request = kind[chance.integers(len(kind))]
                sent = time.monotonic()
                try:
                    url = server.url + request.route
                    answer = session.post(url, request.body, headers=request.headers, timeout=120)
                    wrong = difference(request, answer.status_code, answer.content)
                except Exception as error:  # Counted, whatever it is: a client that died would leave no trace.
                    wrong = f"{type(error).__name__}: {error}"
                if wrong:
                    outcome.wrong.append(wrong)
                (outcome.bad_latencies if is_bad else outcome.latencies).append(time.monotonic() - sent)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        sending = [pool.submit(send_until_the_end, seed) for seed in range(clients)]
        while not all(client.done() for client in sending):
            if server.process.poll() is not None:
                outcome.wrong.append(f"the server ended with status {server.process.returncode}")
                break
            outcome.memory.append(server.memory())
            time.sleep(1)
    outcome.seconds = time.monotonic() - begun
    return outcome


def measure(name: str, options: list[str], images: list[bytes], clients: int, bad_share: float, seconds: float) -> Load:
    """Returns the outcome of the load for a server with `options`, and prints its figures to stderr."""
    with serving(*options) as server:
        scores = [np.asarray(predict(server.url, image)[0]["scores"]) for image in images]
        good, bad = good_requests(images, scores), bad_requests(images[0], scores[0])
        alone = load(server, good, bad, clients=1, bad_share=0, seconds=min(10, seconds))
        benchmarks.note(f"{name}, one client: p50 {1000 * np.median(alone.latencies):.1f} ms")
        outcome = load(server, good, bad, clients, bad_share, seconds)
        benchmarks.note(f"{name}, {clients} clients: {outcome.summary()}")
        if status := server.end():
            outcome.wrong.append(f"exit status {status}")
    return outcome


def measure_swaps(model: Path, images: list[bytes], clients: int, swaps: int, seconds: float) -> Load:
    """Returns the outcome of a load during which `swaps` versions are published, and prints its figures to stderr."""
    with benchmarks.scratch() as folder:
        publish(model, folder, 1)
        with serving("--model", str(folder), "--reload-seconds", "1") as server:
            scores = [np.asarray(predict(server.url, image)[0]["scores"]) for image in images]
            with publishing(model, folder, swaps, seconds):
                outcome = load(server, good_requests(images, scores), [], clients, 0, seconds)
            served = server.output().count(" from now on.")
            benchmarks.note(f"{clients} clients, {served} of {swaps} swaps: {outcome.summary()}")
            if not served:
                outcome.wrong.append("no newer version was served")
    return outcome


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, in images a second."""
    parser = benchmarks.parser(__doc__, images="folder of JPEGs to send")
    parser.add_argument("--model", help="as for marco serve")
    parser.add_argument("--clients", type=int, default=16, help="concurrent clients")
    parser.add_argument("--bad", type=float, default=0.05, help="share of bad requests")
    parser.add_argument("--seconds", type=float, default=60, help="length of the load")
    parser.add_argument("--peer-seconds", type=float, default=30, help="length of the load with one thread")
    parser.add_argument("--swaps", type=int, default=0, help="publish so many versions of --model instead; see above")
    options = parser.parse_args(arguments)
    if options.swaps:
        images = [path.read_bytes() for path in options.images]
        swapped = measure_swaps(Path(options.model), images, options.clients, options.swaps, options.seconds)
        benchmarks.report(swapped.images_a_second, 1, "images/s", requests=len(swapped.latencies))
        sys.exit(1 if swapped.wrong else 0)
    model = ["--model", options.model] if options.model else []
    clients = [path.read_bytes() for path in options.images], options.clients, options.bad
    ours = measure("all cores", model, *clients, options.seconds)
    peer = measure("one thread", [*model, "--threads", "1"], *clients, options.peer_seconds)
    benchmarks.report(ours.images_a_second, peer.images_a_second, "images/s")
    sys.exit(1 if ours.wrong or peer.wrong or ours.growth > FLAT else 0)


if __name__ == "__main__":
    main()
