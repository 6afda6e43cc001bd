import json
import threading
import types

import numpy as np
import pytest

from benchmarks.serve_load import V1, V2, Request, difference, load
from tests.fakes import http_server

SCORES = np.array([0.1, 0.9])
GOOD = Request(V1, b"{}", {}, 200, [SCORES])
RIGHT = json.dumps({"predictions": [{"scores": SCORES.tolist()}]}).encode()


def outputs(scores, error):
    tensors = [{"name": "scores", "shape": [1, 2], "data": scores}, {"name": "error", "shape": [1], "data": [error]}]
    return json.dumps({"outputs": tensors}).encode()


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GOOD, 200, RIGHT),
        (GOOD._replace(route=V2), 200, outputs([0.1, 0.9], "")),
        (GOOD._replace(expected=[None]), 200, b'{"predictions": [{"error": "cut off"}]}'),
        (GOOD._replace(status=400, expected=[]), 400, b'{"error": "no JSON"}'),
    ],
)
def test_right_answers_are_right(request_, status, body):
    assert difference(request_, status, body) is None


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GOOD, 500, b"Internal Server Error"),
        (GOOD, 500, b'{"error": "out of memory"}'),
        (GOOD, 200, b"{}"),
        (GOOD, 200, b"[]"),
        (GOOD, 200, b"\xff"),
        (GOOD, 200, b'{"predictions": []}'),
        (GOOD, 200, b'{"predictions": 5}'),
        (GOOD, 200, b'{"predictions": [{}]}'),
        (GOOD, 200, b'{"predictions": [7]}'),
        (GOOD, 200, b'{"predictions": [{"scores": [0.2, 0.8]}]}'),
        (GOOD, 200, b'{"predictions": [{"scores": [NaN, NaN]}]}'),
        (GOOD, 200, b'{"predictions": [{"error": "busy"}]}'),
        (GOOD._replace(route=V2), 200, outputs([0.1], "")),
        (GOOD._replace(route=V2), 200, b'{"outputs": []}'),
        (GOOD._replace(expected=[None]), 200, RIGHT),
        (GOOD._replace(status=400, expected=[]), 400, b'{"detail": "no JSON"}'),
        (GOOD._replace(status=400, expected=[]), 400, b"Bad Request"),
    ],
)
def test_wrong_answers_are_reported(request_, status, body):
    assert difference(request_, status, body)


class FailingServer:
    """Answers correctly, except for one request in fifty, which gets `failure`; has what `load` needs of a server."""

    def __init__(self, failure):
        self.failure, self.asked, self._lock = failure, 0, threading.Lock()
        self.process = types.SimpleNamespace(poll=lambda: None)

    def respond(self, request):
        with self._lock:
            self.asked += 1
            fails = self.asked % 50 == 0
        return http_server.Answer(*(self.failure if fails else (200, RIGHT)))

    def memory(self):
        return 1 << 30


@pytest.mark.parametrize("failure", [(500, b"Internal Server Error"), (200, b"{}"), (200, b'{"predictions": [7]}')])
def test_one_failure_in_fifty_is_counted_and_does_not_stop_a_client(failure):
    server = FailingServer(failure)
    with http_server.serving(server) as server.url:
        outcome = load(server, [GOOD], [], clients=4, bad_share=0, seconds=1)
    assert len(outcome.latencies) == server.asked >= 100
    assert outcome.wrong == [f"status {failure[0]} for 200: {failure[1]!r}"] * (server.asked // 50)
