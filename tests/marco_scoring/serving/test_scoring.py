"""The server's scoring in one process: time limit, lanes, and newer versions."""

import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from marco_model import InputError
from marco_scoring.serving import classify, server
from tests.fakes.classifier import Scripted as ScriptedClassifier


class Classifier(ScriptedClassifier):
    """Takes a second for an image that begins with "slow"."""

    def __init__(self, name="fake", classes=("a", "b")):
        self.name, self.classes = name, classes

    def score(self, images):
        time.sleep(sum(image.startswith(b"slow") for image in images))
        return np.full((len(images), 2), 0.5, np.float32)


@pytest.fixture
def scorer(monkeypatch):
    monkeypatch.setattr(classify.pictures, "upright", lambda image, bits: image)
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as large:
        yield server.Scorer(Classifier(), "marco", classify.Concurrency(threads=1), (pool, large))


def image(content, work=1):
    return classify.Image(content, work)


def test_an_image_that_takes_too_long_is_answered_with_an_error(scorer, monkeypatch):
    """On 363bfd5 its client waited as long as it took."""
    monkeypatch.setattr(server, "MOST_SECONDS", 0.1)

    async def main():
        begun = time.monotonic()
        with pytest.raises(classify.RequestError, match="not scored within") as failure:
            await scorer.score([image(b"slow")], "a")
        assert (failure.value.status, time.monotonic() - begun < 0.9) == (503, True)
        await asyncio.sleep(1)
        assert (await scorer.score([image(b"quick")], "a"))[0].version == "fake"

    asyncio.run(main())


def test_others_do_not_wait_for_a_large_image(scorer):
    async def main():
        large = asyncio.create_task(scorer.score([image(b"slow", server.LARGE_WORK + 1), image(b"x")], "a"))
        begun = time.monotonic()
        await scorer.score([image(b"quick")], "a")
        assert time.monotonic() - begun < 0.9
        refused = classify.Refused("empty")
        outcomes = await scorer.score([image(b"1"), refused, image(b"2", server.LARGE_WORK + 1)], "a")
        assert [type(outcome) for outcome in outcomes] == [classify.Scored, classify.Refused, classify.Scored]
        assert len(await large) == 2

    asyncio.run(main())


def test_a_request_of_which_nothing_is_scored_is_answered_after_a_pause(scorer, monkeypatch):
    """Two senders of bombs doubled a normal client's 99th percentile, since nothing held up their next requests."""
    monkeypatch.setattr(server, "REFUSAL_SECONDS", 0.3)

    async def main():
        begun = time.monotonic()
        await scorer.score([classify.Refused("too many pixels")], "a")
        assert time.monotonic() - begun > 0.29
        begun = time.monotonic()
        await scorer.score([classify.Refused("too many pixels"), image(b"quick")], "a")
        assert time.monotonic() - begun < 0.29

    asyncio.run(main())


def test_the_newest_version_is_followed_and_what_cannot_be_served_is_not(tmp_path, monkeypatch):
    def publish(number):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "saved_model.pb").touch()

    def open_classifier(folder, threads, average):
        if folder.name == "3":
            raise InputError("damaged")
        return Classifier(f"v{folder.name}", ("a", "c") if folder.name == "4" else ("a", "b"))

    monkeypatch.setattr(classify.marco_model, "open_classifier", open_classifier)
    versions = classify.Versions(tmp_path)
    with pytest.raises(InputError, match="no model"):
        versions.newest()
    publish(1)
    assert versions.newest().name == "v1"
    assert versions.newest() is None
    publish(2)
    assert versions.newest().name == "v2"
    for number, reason in ((3, "damaged"), (4, "has other classes")):
        publish(number)
        for _ in range(2):
            with pytest.raises(InputError, match=reason):
                versions.newest()
    publish(10)
    assert versions.newest().name == "v10"


@pytest.mark.slow  # The model is exported by TensorFlow.
@pytest.mark.parametrize("name", ["novelty.npz", "time_course.npz"])
def test_a_version_with_a_damaged_file_is_refused_before_it_is_served(small_model, tmp_path, name):
    shutil.copytree(small_model[0], tmp_path / "1")
    classify.Versions(tmp_path).newest()
    (tmp_path / "1" / "assets.extra" / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=rf"{name} is damaged .*; export the model again"):
        classify.Versions(tmp_path).newest()
