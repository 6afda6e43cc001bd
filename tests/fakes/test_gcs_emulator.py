"""The emulator of Google Cloud Storage (tests/fakes/gcs_emulator.py) itself."""

import socket

from tests import processes
from tests.fakes import gcs_emulator


def test_a_server_whose_port_is_taken_starts_on_another(gcs, monkeypatch):
    free = processes.free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        ports = iter([gcs.port, taken, free])
        monkeypatch.setattr(processes, "free_port", lambda: next(ports))
        server, port = gcs_emulator._start_server(gcs.url)
        server.kill()
        server.wait()
    assert port == free
