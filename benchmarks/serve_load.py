"""`marco serve` under concurrent clients that also send bad requests, with and without batching.

Each client is a thread that sends one request after the other over one connection: an image by V1 or V2, or, in a share
`--bad` of the cases, something that the server must refuse: a cut image, text that is not base64, an empty image, a
header of a billion pixels, a good and a bad instance together, text that is not JSON. Every answer is checked: a good
image must get the scores that it got alone, and a bad one its error and its status. Memory is the server's resident
set, read every second. It counts as flat if its mean over the last quarter is at most 5 % above that over the second
quarter; the first quarter is for warming up. The last line compares images per second with those of the same server
with `--max-batch 1`. The exit status is 1 if an answer was wrong, the server ended, or memory was not flat.

    python -m benchmarks.serve_load --model models/released --seconds 300
"""

import argparse
import base64
import collections
import contextlib
import dataclasses
import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import report


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
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + route, timeout=5):
                return
            time.sleep(0.1)
        raise RuntimeError(f"not ready within {seconds} s, status {self.process.poll()}:\n{self.output()}")

    def end(self, seconds: float = 60) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def free_port() -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(
    *options: str, environment: Mapping[str, str] | None = None, ready: str = "/v1/models/marco", seconds: float = 300
) -> Iterator[ServerProcess]:
    """Runs `marco serve` with `options` at a free port until the block ends; enters it once `ready` answers 200.

    If `environment` sets `AIP_HTTP_PORT`, that port is used.
    """
    vertex_port = (environment or {}).get("AIP_HTTP_PORT")
    port = int(vertex_port or free_port())
    command = [sys.executable, "-m", "pipelines.cli", "serve", *options]
    command += [] if vertex_port else ["--port", str(port)]
    with tempfile.NamedTemporaryFile(prefix="marco-serve-", suffix=".log") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        server = ServerProcess(port, process, Path(log.name))
        try:
            server.wait_until_ready(ready, seconds)
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


IMAGES = Path(__file__).parents[1] / "tests" / "data" / "images"
V1, V2 = "/v1/models/marco:predict", "/v2/models/marco/infer"
_JSON = {"Content-Type": "application/json"}
FLAT = 0.05
TOLERANCE = 1e-3
"""Of scores: the size of a batch changes the order of additions, which the network amplifies."""
_BILLION_PIXELS = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + struct.pack(">II", 40_000, 25_000) + bytes(100)


class Request(NamedTuple):
    """A request and its expected answer: the status, and for each instance its scores, or None for an error."""

    route: str
    body: bytes
    headers: dict[str, str]
    status: int
    expected: list[np.ndarray | None]


@dataclasses.dataclass
class Load:
    """The outcome of a load: good and bad requests, wrong answers, seconds of each good request, memory per second."""

    seconds: float = 0.0
    good: int = 0
    bad: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    latencies: list[float] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)

    @property
    def images_a_second(self) -> float:
        """Good requests, of one image each, per second."""
        return self.good / self.seconds

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
        lines = [
            f"{self.good} good and {self.bad} bad requests in {self.seconds:.0f} s, {len(self.wrong)} wrong answers",
            f"{self.images_a_second:.2f} images/s; latency p50 {p50} ms, p90 {p90} ms, p99 {p99} ms",
        ]
        if self.memory:
            low, high, last = (size >> 20 for size in (min(self.memory), max(self.memory), self.memory[-1]))
            lines.append(f"memory {low} to {high} MiB, {last} at the end; growth {self.growth:+.1%} (see --help)")
        lines += [f"{count} times {answer}" for answer, count in collections.Counter(self.wrong).most_common(5)]
        return "\n".join(lines)


def predict(url: str, *images: bytes) -> list[dict[str, Any]]:
    """Returns the V1 predictions of encoded images."""
    body = json.dumps({"instances": [_instance(image) for image in images]}).encode()
    with urllib.request.urlopen(urllib.request.Request(url + V1, body, _JSON), timeout=600) as answer:
        return json.load(answer)["predictions"]


def good_requests(images: Sequence[bytes], scores: Sequence[np.ndarray]) -> list[Request]:
    """Returns requests of one image each, by V1, by V2 in base64 and by V2 in bytes."""
    requests = []
    for image, row in zip(images, scores, strict=True):
        requests.append(Request(V1, json.dumps({"instances": [_instance(image)]}).encode(), _JSON, 200, [row]))
        tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
        in_json = {"inputs": [{**tensor, "data": [_base64(image)]}]}
        requests.append(Request(V2, json.dumps(in_json).encode(), _JSON, 200, [row]))
        tail = struct.pack("<I", len(image)) + image
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        requests.append(Request(V2, head + tail, headers, 200, [row]))
    return requests


def bad_requests(image: bytes, scores: np.ndarray) -> list[Request]:
    """Returns requests that must be refused, as a whole or in part."""
    cut = _instance(image[: len(image) // 3])
    instances: list[list[Any]] = [[cut], [{"b64": "no base64!"}], [{"b64": ""}], [_instance(_BILLION_PIXELS)], [7]]
    requests = [Request(V1, json.dumps({"instances": instance}).encode(), _JSON, 200, [None]) for instance in instances]
    mixed = json.dumps({"instances": [_instance(image), cut]}).encode()
    requests.append(Request(V1, mixed, _JSON, 200, [scores, None]))
    return [*requests, *(Request(route, b'{"instances": [', _JSON, 400, []) for route in (V1, V2))]


def load(
    server: ServerProcess,
    good: Sequence[Request],
    bad: Sequence[Request],
    clients: int,
    bad_share: float,
    seconds: float,
) -> Load:
    """Puts `server` under load and watches its memory."""
    outcome, lock = Load(), threading.Lock()
    begun = time.monotonic()
    threads = [
        threading.Thread(target=_client, args=(server.url, good, bad, bad_share, begun + seconds, seed, outcome, lock))
        for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if server.process.poll() is not None:
            outcome.wrong.append(f"the server ended with status {server.process.returncode}")
            break
        outcome.memory.append(server.memory())
        time.sleep(1)
    for thread in threads:
        thread.join()
    outcome.seconds = time.monotonic() - begun
    return outcome


def _client(
    url: str,
    good: Sequence[Request],
    bad: Sequence[Request],
    bad_share: float,
    until: float,
    seed: int,
    outcome: Load,
    lock: threading.Lock,
) -> None:
    chance = random.Random(seed)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)
    while time.monotonic() < until:
        is_bad = chance.random() < bad_share
        request = chance.choice(bad if is_bad else good)
        begun = time.monotonic()
        try:
            connection.request("POST", request.route, request.body, request.headers)
            answer = connection.getresponse()
            wrong = difference(request, answer.status, answer.read())
        except Exception as error:  # Counted, whatever it is: a client that died would leave no trace.
            wrong = f"{type(error).__name__}: {error}"
            connection.close()
        with lock:
            outcome.bad += is_bad
            outcome.good += not is_bad
            if wrong:
                outcome.wrong.append(wrong)
            if not is_bad:
                outcome.latencies.append(time.monotonic() - begun)
    connection.close()


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
        return _row_difference(rows, request.expected)
    except (ValueError, LookupError, TypeError, AttributeError):  # Not JSON, or not a document of the protocol.
        return message


def _row_difference(rows: Sequence[dict[str, Any]], expected: Sequence[np.ndarray | None]) -> str | None:
    if len(rows) != len(expected):
        return f"{len(rows)} answers for {len(expected)} images"
    for row, scores in zip(rows, expected, strict=True):
        if (scores is None) != bool(row.get("error")):
            return f"{row} for {scores}"
        if scores is not None and not np.allclose(row["scores"], scores, rtol=0, atol=TOLERANCE):
            return f"scores {row['scores']} for {scores.tolist()}"
    return None


def _rows(tensors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name = {tensor["name"]: np.reshape(tensor["data"], tensor["shape"]) for tensor in tensors}
    return [
        {"scores": scores, "error": str(error)}
        for scores, error in zip(by_name["scores"], by_name["error"], strict=True)
    ]


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode()


def _instance(image: bytes) -> dict[str, Any]:
    return {"image_bytes": {"b64": _base64(image)}}


def batches(server: ServerProcess) -> np.ndarray:
    """Returns how many images the model has scored since the server started, and in how many batches."""
    with urllib.request.urlopen(server.url + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    values = {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("marco_batch_images_")}
    return np.array([values["marco_batch_images_sum"], values["marco_batch_images_count"]])


def _measure(options: Sequence[str], chosen: argparse.Namespace, seconds: float, name: str) -> Load:
    images = [path.read_bytes() for path in sorted(chosen.images.glob("*.jp*g"))]
    with serving(*options) as server:
        scores = [np.asarray(predict(server.url, image)[0]["scores"]) for image in images]
        good, bad = good_requests(images, scores), bad_requests(images[0], scores[0])
        alone = load(server, good, bad, clients=1, bad_share=0, seconds=min(10, seconds))
        print(f"{name}, one client: p50 {1000 * np.median(alone.latencies):.1f} ms", file=sys.stderr)
        before = batches(server)
        outcome = load(server, good, bad, chosen.clients, chosen.bad, seconds)
        print(f"{name}, {chosen.clients} clients: {outcome.summary()}", file=sys.stderr)
        scored, times = batches(server) - before
        print(f"{scored / times:.2f} images at once on average", file=sys.stderr)
        if status := server.end():
            outcome.wrong.append(f"exit status {status}")
    return outcome


def main() -> None:
    """Measures and reports, in images a second."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", help="as for marco serve")
    options.add_argument("--images", type=Path, default=IMAGES, help="folder of JPEGs to send")
    options.add_argument("--clients", type=int, default=16, help="concurrent clients")
    options.add_argument("--bad", type=float, default=0.05, help="share of bad requests")
    options.add_argument("--seconds", type=float, default=60, help="length of the load")
    options.add_argument("--peer-seconds", type=float, default=30, help="length of the load without batching")
    chosen = options.parse_args()
    model = ("--model", chosen.model) if chosen.model else ()
    ours = _measure(model, chosen, chosen.seconds, "batching")
    peer = _measure((*model, "--max-batch", "1"), chosen, chosen.peer_seconds, "one at a time")
    report(ours.images_a_second, peer.images_a_second, "images/s")
    sys.exit(1 if ours.wrong or peer.wrong or ours.growth > FLAT else 0)


if __name__ == "__main__":
    main()
