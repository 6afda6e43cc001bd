import asyncio
import contextlib
import http.client
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from marco_scoring.serving import connections


def answer(chunks, headers=(), limit=10, disconnect=False):
    """Sends a body in `chunks`; returns the status, what the application read, and how many chunks were left."""
    read, sent, queue = [], [], list(chunks)

    async def application(scope, receive, send):
        more = True
        while more:
            message = await receive()
            read.append(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200})

    async def receive():
        if not queue:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": queue.pop(0), "more_body": bool(queue) or disconnect}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": list(headers)}
    asyncio.run(connections.BodyLimit(application, limit, limit)(scope, receive, send))
    return (sent[0]["status"] if sent else None), b"".join(read), len(queue)


@pytest.mark.parametrize("chunks", [[b""], [b"0123456789"], [b"01234", b"", b"56789"]])
def test_bodies_within_the_limit_arrive_completely(chunks):
    body = b"".join(chunks)
    headers = [(b"content-length", str(len(body)).encode())]
    assert answer(chunks, headers) == answer(chunks) == (200, body, 0)


def test_longer_ones_are_read_to_the_end_and_refused():
    assert answer([b"0123456789", b"x"]) == (413, b"", 0)
    assert answer([b"0123456", b"89ab"], [(b"content-length", b"11")]) == (413, b"", 0)


def test_a_request_that_asks_before_it_sends_is_refused_at_once():
    assert answer([b"x" * 11], [(b"content-length", b"11"), (b"expect", b"100-continue")]) == (413, b"", 1)


def test_endless_ones_are_cut_off():
    status, read, left = answer([b"01234"] * 1000)
    assert (status, read) == (413, b"")
    assert left > 900


def test_one_who_leaves_gets_no_answer():
    assert answer([b"0"], disconnect=True) == (None, b"", 0)


def test_other_protocols_pass():
    seen = []

    async def application(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(connections.BodyLimit(application, 10, 10)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


class Crowd:
    """Requests of one application that answers on demand."""

    def __init__(self, limit, in_flight):
        self.go = asyncio.Event()
        self.limited = connections.BodyLimit(self._application, limit, in_flight)

    async def _application(self, scope, receive, send):
        while (await receive()).get("more_body", False):
            pass
        await self.go.wait()
        if scope["path"] == "fail":
            raise ArithmeticError
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def ask(self, *chunks, announced=None, path="", leaves=False, sender="127.0.0.1"):
        """Begins a request; returns its task, whose result is the status and the headers, None without an answer."""
        queue, sent = list(chunks), []

        async def receive():
            await asyncio.sleep(0)
            if not queue:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": queue.pop(0), "more_body": bool(queue) or leaves}

        async def send(message):
            sent.append(message)

        async def run():
            headers = [] if announced is None else [(b"content-length", b"%d" % announced)]
            scope = {"type": "http", "headers": headers, "path": path, "client": (sender, 5)}
            await self.limited(scope, receive, send)
            return (sent[0]["status"], dict(sent[0]["headers"])) if sent else None

        return asyncio.create_task(run())


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("announced", [None, 4])
def test_the_bodies_of_all_requests_are_limited_until_they_are_answered(announced):
    async def main():
        crowd = Crowd(limit=10, in_flight=10)
        first, second = crowd.ask(b"0123"), crowd.ask(b"01", b"23")
        await settled()
        status, headers = await crowd.ask(b"01", b"23", announced=announced)
        assert (status, headers[b"retry-after"]) == (503, b"1")
        third, nothing = crowd.ask(b"01"), crowd.ask(b"")
        await settled()
        crowd.go.set()
        assert [(await task)[0] for task in (first, second, third, nothing)] == [200] * 4
        assert (await crowd.ask(b"0123456789"))[0] == 200

    asyncio.run(main())


def test_of_many_that_come_at_once_some_are_answered():
    async def main():
        crowd = Crowd(limit=10, in_flight=20)
        tasks = [crowd.ask(*[b"0"] * 10, announced=10) for _ in range(8)]
        await settled()
        crowd.go.set()
        statuses = sorted([(await task)[0] for task in tasks])
        assert statuses.count(200) in (1, 2)
        assert set(statuses) == {200, 503}

    asyncio.run(main())


def test_a_client_that_leaves_or_fails_releases_its_share():
    async def main():
        crowd = Crowd(limit=10, in_flight=10)
        crowd.go.set()
        assert await crowd.ask(b"0123456789", leaves=True) is None
        with pytest.raises(ArithmeticError):
            await crowd.ask(b"0123456789", path="fail")
        assert (await crowd.ask(b"0123456789a"))[0] == 413
        assert (await crowd.ask(b"0123456789"))[0] == 200

    asyncio.run(main())


def test_a_client_that_announces_a_body_and_sends_nothing_blocks_nobody():
    async def main():
        crowd = Crowd(limit=10, in_flight=10)
        silent = asyncio.create_task(
            crowd.limited({"type": "http", "headers": [(b"content-length", b"10")]}, asyncio.Event().wait, None)
        )
        await settled()
        crowd.go.set()
        assert (await crowd.ask(b"0123456789", announced=10))[0] == 200
        silent.cancel()

    asyncio.run(main())


def test_a_stalled_sender_is_dropped(monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.01)

    async def main():
        crowd, sent, begun = Crowd(limit=10, in_flight=10), [], asyncio.Event()

        async def receive():
            if begun.is_set():
                await asyncio.Event().wait()
            begun.set()
            return {"type": "http.request", "body": b"012345678", "more_body": True}

        async def send(message):
            sent.append(message)

        await crowd.limited({"type": "http", "headers": []}, receive, send)
        assert sent[0]["status"] == 408
        crowd.go.set()
        assert (await crowd.ask(b"0123456789"))[0] == 200

    asyncio.run(main())


def test_a_sender_that_trickles_is_dropped(monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.2)

    async def main():
        sent = []

        async def receive():
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message):
            sent.append(message)

        await Crowd(limit=10**6, in_flight=10**6).limited({"type": "http", "headers": []}, receive, send)
        assert sent[0]["status"] == 408

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("sends", [b"", b"x" * 4, b"x" * 11], ids=["nothing", "a part", "all"])
def test_what_is_refused_by_its_announced_length_is_answered_at_once(sends):
    """On 363bfd5 the answer came after a minute, if nothing was sent."""

    async def main():
        sent, answered, read = [], asyncio.Event(), []

        async def send(message):
            sent.append(message)
            if message.get("body"):
                answered.set()

        async def receive():
            assert answered.is_set()
            if read or not sends:
                await asyncio.Event().wait()
            read.append(sends)
            return {"type": "http.request", "body": sends, "more_body": len(sends) < 11}

        scope = {"type": "http", "headers": [(b"content-length", b"11")]}
        task = asyncio.create_task(Crowd(limit=10, in_flight=10).limited(scope, receive, send))
        await asyncio.wait_for(answered.wait(), 1)
        assert sent[0]["status"] == 413
        task.cancel()

    asyncio.run(main())


def test_one_sender_leaves_room_for_the_bodies_of_another():
    """On 363bfd5 there was no bound at all; with one bound for all, the first sender takes it all."""

    async def main():
        crowd = Crowd(limit=10, in_flight=40)
        flood = [crowd.ask(b"0123456789", sender="10.0.0.1") for _ in range(8)]
        await settled()
        guest = crowd.ask(b"0123456789", sender="10.0.0.2")
        await settled()
        crowd.go.set()
        assert (await guest)[0] == 200
        statuses = [(await task)[0] for task in flood]
        assert (statuses.count(200), statuses.count(503)) == (3, 5)
        assert not crowd.limited._bytes

    asyncio.run(main())


@pytest.fixture
def server():
    """A server that allows five connections; returns its port, and the event that lets it answer `/pending`.

    Its answer is `ok`, and for `/long` eight megabytes. It begins that for `/begun` before it has read the request. For
    `/left` it waits until the sender has gone, and sets the event then.
    """
    release = threading.Event()

    async def application(scope, receive, send):
        while scope["path"] == "/pending" and not release.is_set():
            await asyncio.sleep(0.01)
        content = b"ok" * (1 << 22 if scope["path"] == "/long" else 1)
        if scope["path"] != "/begun":
            while (await receive()).get("more_body"):
                pass
            await asyncio.sleep(0.001)
        if scope["path"] == "/left" and (await receive())["type"] == "http.disconnect":
            release.set()
        length = str(len(content)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        while scope["path"] == "/begun" and not release.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": content})

    config = uvicorn.Config(
        application, port=0, http=connections.connection_type(5), ws="none", lifespan="off", log_level="critical"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield running.servers[0].sockets[0].getsockname()[1], release
    release.set()
    running.should_exit = True
    thread.join()


def get(port, path="/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.read()


def half_open(port, sent):
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
def test_connections_that_send_no_request_give_way_to_those_that_do(server, sent):
    port, release = server
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(get, port, "/pending")
        time.sleep(0.2)
        crowd = [half_open(port, sent) for _ in range(20)]
        assert [get(port) for _ in range(5)] == [b"ok"] * 5
        release.set()
        assert pending.result(20) == b"ok"
    for connection in crowd:
        connection.close()


def test_headers_that_do_not_come_in_time_end_the_connection_and_others_last(server, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    port, _ = server
    slow = half_open(port, b"GET / HTTP/1.1\r\nHost: x\r\n")
    lasting = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(2):
        lasting.request("GET", "/")
        assert lasting.getresponse().read() == b"ok"
        time.sleep(0.5)
    slow.settimeout(20)
    with contextlib.suppress(ConnectionResetError):
        assert slow.recv(1) == b""
    lasting.sock.sendall(b"GET / HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert lasting.sock.recv(1) == b""
    lasting.close()


def test_connections_that_do_not_read_their_answers_give_way_to_others(server):
    port, _ = server
    crowd = [half_open(port, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n" * 2) for _ in range(5)]
    time.sleep(0.5)
    assert [get(port) for _ in range(5)] == [b"ok"] * 5
    for connection in crowd:
        connection.close()


def read_all(connection):
    read = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            read += part
    connection.close()
    return read


def test_an_answer_that_is_not_read_in_time_is_dropped(server, monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    port, _ = server
    slow = half_open(port, b"GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    time.sleep(1)
    assert len(read_all(slow)) < 1 << 23
    assert len(get(port, "/long")) == 1 << 23


def test_requests_sent_ahead_wait_in_the_network(server):
    """uvicorn read 256 KiB more for each request that it answered, and kept it all."""
    port, _ = server
    ahead = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000
    connection, sent = half_open(port, b""), 0
    reader = threading.Thread(target=read_all, args=(connection,))
    reader.start()
    end = time.monotonic() + 1
    connection.settimeout(1)
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < end:
            sent += connection.send(ahead[sent % 27 :])
    connection.shutdown(socket.SHUT_RDWR)
    reader.join()
    assert 0 < sent < 20 << 20


@pytest.mark.parametrize("size", [0, 10_000, 100_000, 1_000_000])
def test_a_sender_that_leaves_is_noticed_whatever_it_sent(server, size):
    """uvicorn stops reading once 64 KiB of a body wait for the application, and saw no end of the connection then."""
    port, gone = server
    head = f"POST /left HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    connection = half_open(port, head + b"x" * size)
    assert not gone.wait(0.2)
    connection.close()
    assert gone.wait(5)


def test_a_request_sent_ahead_in_two_parts_is_answered(server):
    port, release = server
    first = b"GET /pending HTTP/1.1\r\nHost: x\r\n\r\n"
    connection = half_open(port, first + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
    time.sleep(0.2)
    release.set()
    time.sleep(0.2)
    connection.sendall(b"bcGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert read_all(connection).count(b" 200 OK") == 3


@pytest.mark.parametrize(("size", "count", "status"), [(1, 900, b"200"), (1024, 5000, b"200"), (1, 100_000, b"400")])
def test_bodies_of_very_many_small_chunks_are_refused(server, size, count, status):
    port, _ = server
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    connection = half_open(port, head)
    with contextlib.suppress(ConnectionError):
        connection.sendall((b"%x\r\n" % size + b"x" * size + b"\r\n") * count + b"0\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 " + status
    connection.close()


def test_an_error_of_a_sender_whose_answer_has_begun_is_no_failure_of_the_server(server, caplog):
    port, _ = server
    connection = half_open(port, b"POST /begun HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 200"
    connection.sendall(b"not a size\r\n")
    read_all(connection)
    assert get(port) == b"ok"
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_endless_headers_are_refused(server):
    port, _ = server
    connection = half_open(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
    assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    connection.close()


@pytest.mark.parametrize("length", [17_000, 60_000, 200_000])
def test_long_headers_are_refused_also_when_they_come_at_once(server, length):
    port, _ = server
    connection = half_open(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * length + b"\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    connection.close()
    with half_open(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 16_000 + b"\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_as_many_connections_are_allowed_as_the_process_may_have_files():
    code = (
        "import resource\n"
        "from marco_scoring.serving import connections\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 600))\n"
        "print(connections.allow(10), connections.allow(300), connections.allow(1000))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["10", "300", "336", "600"]


def test_a_message_that_comes_again_and_again_is_logged_a_few_times():
    repetitions = connections.Repetitions()

    def logged(message, created):
        record = logging.makeLogRecord({"msg": message, "created": created})
        return repetitions.filter(record), record.msg

    passed = [logged("bad", second / 10) for second in range(100)]
    assert [passes for passes, _ in passed] == [True] * 10 + [False] * 90
    assert passed[9][1] == "bad (if it comes again within 60 s, it is left out)"
    assert logged("other", 20.0) == (True, "other")
    assert logged("bad", 70.0) == (True, "bad")
    assert not any(logged(f"text {number}", 71.0)[0] is None for number in range(3000))
    assert len(repetitions._counts) <= 1001


def test_the_access_log_shows_paths_without_their_queries():
    arguments = ("127.0.0.1:1", "POST", "/v1/models/marco:predict?access_token=a&b=1", "1.1", 200)
    record = logging.makeLogRecord({"msg": '%s - "%s %s HTTP/%s" %d', "args": arguments})
    assert connections.WithoutQuery().filter(record)
    assert record.getMessage() == '127.0.0.1:1 - "POST /v1/models/marco:predict?*** HTTP/1.1" 200'
