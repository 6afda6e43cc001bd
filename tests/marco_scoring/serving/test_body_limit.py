import asyncio

import pytest

from marco_scoring.serving import server
from marco_scoring.serving.server import BodyLimit


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
    asyncio.run(BodyLimit(application, limit, limit)(scope, receive, send))
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

    asyncio.run(BodyLimit(application, 10, 10)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


class Crowd:
    """Requests of one application that answers on demand."""

    def __init__(self, limit, in_flight):
        self.go = asyncio.Event()
        self.limited = BodyLimit(self._application, limit, in_flight)

    async def _application(self, scope, receive, send):
        while (await receive()).get("more_body", False):
            pass
        await self.go.wait()
        if scope["path"] == "fail":
            raise ArithmeticError
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def ask(self, *chunks, announced=None, path="", leaves=False):
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
            await self.limited({"type": "http", "headers": headers, "path": path}, receive, send)
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
    monkeypatch.setattr(server, "PATIENCE", 0.01)

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
