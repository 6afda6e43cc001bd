"""The emulator of the tests (tests/fakes/gcs_emulator.py) itself."""

import socket


def test_a_port_that_another_has_taken_is_not_taken_for_the_server(gcs, monkeypatch):
    from tests.fakes import gcs_emulator as module

    free = module._free_port()
    with socket.create_server(("127.0.0.1", 0)) as another:
        taken = another.getsockname()[1]
        ports = iter([gcs.port, taken, free])
        monkeypatch.setattr(module, "_free_port", lambda: next(ports))
        server, port = module._started(gcs.address)
        server.kill()
        server.wait()
    assert port == free
