"""Which of its sessions a network runs an image on."""

import threading

import numpy as np
import pytest

from marco_model import onnx_network, pixels

IMAGE = np.zeros((3, 4, 4), np.float32)


class Session:
    """A session of so many threads; what it runs waits while `gate` is closed."""

    def __init__(self, threads, runs, gate):
        self._threads, self._runs, self._gate = threads, runs, gate

    def run(self, names, inputs):
        self._runs.append(self._threads)
        assert self._gate.wait(10)
        return [np.ones((1, 2), np.float32) for _ in names]


@pytest.fixture
def network(monkeypatch):
    """A network for four threads, with the threads of the session of each of its `runs`, and the `gate` of these."""
    monkeypatch.setattr(onnx_network, "session", lambda model, threads: Session(threads, network.runs, network.gate))
    network = onnx_network.OnnxNetwork(b"", pixels.Preparation(4), threads=4)
    network.runs, network.gate = [], threading.Event()
    network.gate.set()
    return network


def score(network, count=1):
    return network.outputs("scores", [IMAGE] * count)


def test_a_few_images_are_scored_by_all_threads_and_many_by_one_each(network):
    assert score(network, 3).shape == (3, 2)
    assert network.runs == [4, 4, 4]
    assert score(network, 5).shape == (5, 2)
    assert network.runs[3:] == [1] * 5


def test_the_last_few_images_of_a_folder_need_no_second_session(network):
    score(network, 4)
    score(network, 1)
    assert network.runs == [1] * 5


def test_an_image_is_scored_by_one_thread_while_another_is_being_scored(network):
    network.gate.clear()
    first = threading.Thread(target=score, args=[network])
    first.start()
    while not network.runs:
        first.join(0.01)
    second = threading.Thread(target=score, args=[network])
    second.start()
    while len(network.runs) < 2:
        second.join(0.01)
    network.gate.set()
    for thread in (first, second):
        thread.join()
    score(network)
    assert network.runs == [4, 1, 4]


def test_a_failure_counts_as_an_end(network, monkeypatch):
    with pytest.raises(ValueError, match="damaged"):
        network._map(lambda session, image: (_ for _ in ()).throw(ValueError("damaged")), [IMAGE])
    score(network)
    assert network.runs == [4]
