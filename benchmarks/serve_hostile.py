"""What hostile clients cost a normal client of `marco serve`, and the server's memory.

A normal client sends one image after the other, first beside another normal client, then beside these attacks, all at
once, from another process and another address. (A client that is alone has all threads, whoever the others are.)

- bombs: JPEGs with a second frame header that hides 179 million pixels, a PNG of a billion;
- scans: JPEGs of a few kilobytes, with as many scans as are refused, and with as many as are just decoded;
- large: the slowest picture that is within the limits, of 49 million pixels;
- bodies: requests of 60 MiB;
- flood: ordinary images, as fast as they are answered, by eight clients;
- headers: connections that never end their headers, and half-open ones, opened again and again.

It reports the normal client's 99th percentile of both in milliseconds, refusals, and the server's largest memory. The
exit status is 1 if the normal client was refused or its 99th percentile grew by more than a factor of 3.

    python -m benchmarks.serve_hostile --model models/released --seconds 60
"""

import concurrent.futures
import contextlib
import http.client
import io
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import benchmarks
from benchmarks import serve_load

HOSTILE = "127.0.0.2"
"""The address that attacks come from; the normal client has 127.0.0.1."""

TIMES = 3.0
"""By which the normal client's 99th percentile may grow."""


def slow_jpeg(height: int, width: int, scans: int) -> bytes:
    """Returns a legal progressive JPEG of one grey that is small and takes its decoder long.

    Each scan refines every coefficient of every block, though its few bytes say only that nothing changes. `scans`: at
    most 15, beyond which they are no longer legal. A multiple of 32,767 blocks needs the fewest bytes.
    """
    blocks = -(-height // 8) * -(-width // 8)
    runs, single = divmod(blocks, 32_767)
    header = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    parts = [
        b"\xff\xd8",
        _segment(0xDB, b"\0" + bytes([1] * 64)),
        _segment(0xC2, header),
        _segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00"),
        # The code 0 is a run of blocks without a change, with 14 bits of its length; 10 is one such block.
        _segment(0xC4, b"\x10" + bytes([1, 1] + [0] * 14) + b"\xe0\x00"),
        _segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + _bits("0" * blocks),
    ]
    unchanged = _bits(("0" + "1" * 14) * runs + "10" * single)
    for low in range(scans - 2, -1, -1):
        high = 0 if low == scans - 2 else low + 1
        parts.append(_segment(0xDA, bytes([1, 1, 0, 1, 63, high << 4 | low])) + unchanged)
    return b"".join([*parts, b"\xff\xd9"])


def hidden_frame() -> bytes:
    """Returns a JPEG of 13,370x13,370 pixels for libjpeg, which skips ff 00, and of 8x8 for a reader that does not."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG")
    encoded = bytearray(buffer.getvalue())
    frame = encoded.index(b"\xff\xc0")
    shown = bytes(encoded[frame : frame + 13])
    encoded[frame + 5 : frame + 9] = struct.pack(">HH", 13_370, 13_370)
    skipped = bytes(encoded[2 : frame + 13])
    comment = b"\xff\xfe" + struct.pack(">H", len(shown) + 2) + shown
    return bytes(b"\xff\xd8\xff\x00" + struct.pack(">H", len(skipped) + 2) + skipped + comment + encoded[frame + 13 :])


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _bits(digits: str) -> bytes:
    digits += "1" * (-len(digits) % 8)
    packed = bytes(int(digits[start : start + 8], 2) for start in range(0, len(digits), 8))
    return packed.replace(b"\xff", b"\xff\x00")


def _many_scans() -> list[object]:
    small = slow_jpeg(1208, 1736, 15)
    last = small[small.rindex(b"\xff\xda") : -2]
    return [serve_load.v1(small[:-2] + last * count + small[-2:]) for count in (80, 2000)]


def _ordinary() -> list[object]:
    return [serve_load.v1(benchmarks.jpeg_files(benchmarks.IMAGES)[0].read_bytes())]


COMPANY = "company"
"""Another normal client, which is no attack."""

REQUESTS: dict[str, tuple[int, Callable[[], list[object]]]] = {
    "bombs": (2, lambda: [serve_load.v1(hidden_frame(), serve_load.BILLION_PIXELS)]),
    "scans": (2, _many_scans),
    "large": (2, lambda: [serve_load.v1(slow_jpeg(7000, 7000, 15))]),
    "bodies": (1, lambda: [{"instances": [{"b64": "A" * (60 << 20)}]}]),
    "flood": (8, _ordinary),
    COMPANY: (1, _ordinary),
}
"""What others request: the number of clients, and the documents that each sends in turns."""

ATTACKS = (*(name for name in REQUESTS if name != COMPANY), "headers")


def _ask(bodies: list[bytes], host: str, end: float) -> None:
    while time.time() < end:
        for body in bodies:
            with contextlib.suppress(OSError, http.client.HTTPException):
                _answer(host, body, HOSTILE)


def _answer(host: str, body: bytes, address: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, timeout=120, source_address=(address, 0))
    with contextlib.closing(connection):
        connection.request("POST", serve_load.V1, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _open_connections(host: str, end: float) -> None:
    """Keeps 300 connections half-open or in the middle of their headers, and opens ten new ones a second."""
    name, port = host.split(":")
    connections: list[socket.socket] = []
    while time.time() < end:
        for sent in (b"", b"POST / HTTP/1.1\r\nX-Slow: ") * 5:
            with contextlib.suppress(OSError):
                connections.append(socket.create_connection((name, int(port)), 5, (HOSTILE, 0)))
                connections[-1].sendall(sent)
        for connection in connections[1::2]:
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
        while len(connections) > 300:
            connections.pop(0).close()
        time.sleep(1)


def attack(host: str, names: list[str], seconds: float) -> None:
    """Runs the attacks `names` at once, for so many seconds."""
    end = time.time() + seconds
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        if "headers" in names:
            pool.submit(_open_connections, host, end)
        for clients, documents in (REQUESTS[name] for name in names if name in REQUESTS):
            bodies = [json.dumps(document).encode() for document in documents()]
            for _ in range(clients):
                pool.submit(_ask, bodies, host, end)


@contextlib.contextmanager
def attacking(host: str, names: list[str], seconds: float) -> Iterator[None]:
    """Attacks `host` from another process, which gives way to the server where cores are few, within the context."""
    code = f"from benchmarks import serve_hostile; serve_hostile.attack({host!r}, {names!r}, {seconds})"
    with subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", code]) as process:
        try:
            time.sleep(5)  # Until all attacks are under way.
            yield
        finally:
            process.kill()


def normal_client(host: str, image: bytes, seconds: float) -> tuple[np.ndarray, int]:
    """Returns the seconds of each of a client's requests, and how many were not scored."""
    body, end = json.dumps(serve_load.v1(image)).encode(), time.monotonic() + seconds
    latencies, failed = [], 0
    while time.monotonic() < end:
        begun = time.perf_counter()
        status, answer = _answer(host, body, "127.0.0.1")
        latencies.append(time.perf_counter() - begun)
        failed += status != 200 or "scores" not in json.loads(answer)["predictions"][0]
    return np.array(latencies), failed


def most_memory(server: serve_load.ServerProcess) -> int:
    """Returns the largest resident set that a server ever had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+)", status)
    return int(match[1]) << 10 if match else 0


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, in milliseconds."""
    parser = benchmarks.parser(__doc__, images="folder of JPEGs, of which the normal client sends the first")
    parser.add_argument("--model", help="as for marco serve")
    parser.add_argument("--seconds", type=float, default=60, help="length of each of the two measurements")
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=ATTACKS, help="default: all")
    parser.add_argument("--serve", nargs="*", default=[], help="further options of marco serve, without --")
    options = parser.parse_args(arguments)
    model = ["--model", options.model] if options.model else []
    image = options.images[0].read_bytes()
    with serve_load.serving(*model, *(f"--{option}" for option in options.serve)) as server:
        host = server.url.removeprefix("http://")
        alone, _ = normal_client(host, image, options.seconds / 4)
        with attacking(host, [COMPANY], options.seconds + 30):
            quiet, failed = normal_client(host, image, options.seconds)
        benchmarks.note(
            f"alone: median {1000 * np.median(alone):.0f} ms; beside another normal client: {len(quiet)} requests, "
            f"memory at most {most_memory(server) >> 20} MiB"
        )
        with attacking(host, options.attacks, options.seconds + 30):
            beside, refused = normal_client(host, image, options.seconds)
        benchmarks.note(f"beside attacks: {len(beside)} requests, {refused} refused")
        memory = most_memory(server) >> 20
        alive = server.process.poll() is None
    (median, tail), (quiet_median, quiet_tail) = (1000 * np.percentile(side, [50, 99]) for side in (beside, quiet))
    benchmarks.note(f"median {median:.0f} ms, without attacks {quiet_median:.0f} ms; memory at most {memory} MiB")
    benchmarks.report(tail, quiet_tail, "ms", memory_mib=memory, refused=failed + refused)
    sys.exit(0 if alive and not failed + refused and tail <= TIMES * quiet_tail else 1)


if __name__ == "__main__":
    main()
