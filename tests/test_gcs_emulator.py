"""The emulator of the tests (tests/gcs_emulator.py) itself."""

import socket
import sys


def test_a_port_that_another_has_taken_is_not_taken_for_the_server(gcs, monkeypatch):
    module = sys.modules["gcs_emulator"]
    free = module._free_port()
    with socket.create_server(("127.0.0.1", 0)) as another:
        taken = another.getsockname()[1]
        ports = iter([gcs.port, taken, free])
        monkeypatch.setattr(module, "_free_port", lambda: next(ports))
        server, port = module._started(gcs.address)
        server.kill()
        server.wait()
    assert port == free
