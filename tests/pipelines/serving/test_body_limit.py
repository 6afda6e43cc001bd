import asyncio

import pytest

from pipelines.serving.body_limit import BodyLimit


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
    asyncio.run(BodyLimit(application, limit)(scope, receive, send))
    return (sent[0]["status"] if sent else None), b"".join(read), len(queue)


@pytest.mark.parametrize("chunks", [[b""], [b"0123456789"], [b"01234", b"", b"56789"]])
def test_bodies_within_the_limit_arrive_whole(chunks):
    body = b"".join(chunks)
    headers = [(b"content-length", str(len(body)).encode())]
    assert answer(chunks, headers) == answer(chunks) == (200, body, 0)


def test_longer_ones_are_read_to_the_end_and_refused():
    assert answer([b"0123456789", b"x"]) == (413, b"", 0)
    assert answer([b"0123456", b"89ab"], [(b"content-length", b"11")]) == (413, b"", 0)


def test_who_asks_first_is_refused_at_once():
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

    asyncio.run(BodyLimit(application, 10)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
