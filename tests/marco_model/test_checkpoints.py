"""Checkpoints on this machine, with damage and outages, and on fake-gcs-server, with faults on the way."""

import errno

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from marco_model import checkpoints, store
from marco_model.errors import ClusterError, InputError


def checkpoint_of(step, seed=0):
    rng = np.random.default_rng(seed)
    values = {"weight/a/kernel": rng.normal(size=(3, 5)).astype(np.float32), "weight/b": np.float32(seed)}
    history = [checkpoints.Evaluated(past, 0.1 * past, 1 / 3) for past in range(0, step, 5)]
    return checkpoints.Checkpoint(step, step // 2, 0.1 + 0.2, values, history)


def checkpoint_path(folder, step):
    return folder / f"step-{step:09d}.npz"


def test_a_checkpoint_is_read_as_it_was_saved_to_the_bit(tmp_path):
    saved = checkpoint_of(12, 3)
    checkpoints.save(str(tmp_path), saved)
    newest = checkpoints.newest(str(tmp_path))
    assert newest[:3] == saved[:3]
    assert newest.history == saved.history
    assert newest.values.keys() == saved.values.keys()
    for name, value in saved.values.items():
        assert newest.values[name].dtype == np.float32
        np.testing.assert_array_equal(newest.values[name], value)


def test_the_last_two_are_kept_and_nothing_else_is_left(tmp_path):
    for name in (".step-000000007.npz.0123456789ab.partial", "step-000000007.npz.partial"):
        (tmp_path / name).write_bytes(b"half")
    for step in (5, 10, 900, 1000):
        checkpoints.save(str(tmp_path), checkpoint_of(step))
    assert checkpoints.saved_steps(str(tmp_path)) == [900, 1000]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_checkpoints_has_none(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "step-000000004.npz.partial").write_bytes(b"half")
    assert checkpoints.newest(str(tmp_path)) is None
    assert checkpoints.newest(str(tmp_path / "missing")) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_newest_file_is_read_completely_or_the_one_before_it_is(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints.save(str(folder), checkpoint_of(10, 1))
    checkpoints.save(str(folder), checkpoint_of(20, 2))
    content = bytearray(checkpoint_path(folder, 20).read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1), label="at") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), label="byte")] ^= data.draw(st.integers(1, 255))
    checkpoint_path(folder, 20).write_bytes(content)
    newest = checkpoints.newest(str(folder))
    expected = checkpoint_of(newest.step, newest.step // 10)
    assert newest.step in (10, 20)
    for name, value in expected.values.items():
        np.testing.assert_array_equal(newest.values[name], value)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path, caplog):
    checkpoints.save(str(tmp_path), checkpoint_of(10))
    checkpoint_path(tmp_path, 20).write_bytes(b"")
    assert checkpoints.newest(str(tmp_path)).step == 10
    assert "step-000000020.npz can't be read" in caplog.text
    assert "begins again" not in caplog.text
    checkpoint_path(tmp_path, 10).write_bytes(b"cut")
    assert checkpoints.newest(str(tmp_path)) is None
    assert f"No checkpoint in {tmp_path} can be read: training begins again" in caplog.text


class Outage:
    """A mount whose server does not answer the first `count` times that its files are listed or read."""

    def __init__(self, monkeypatch, count):
        self.left = count
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        for module, name in ((checkpoints, "_names"), (store, "read_bytes")):
            monkeypatch.setattr(module, name, self.wrap(getattr(module, name)))

    def wrap(self, function):
        def answer(*arguments, **options):
            if self.left:
                self.left -= 1
                raise OSError(errno.EIO, "Input/output error")
            return function(*arguments, **options)

        return answer


@pytest.mark.parametrize("count", [1, 5])
def test_a_store_that_does_not_answer_for_a_while_is_no_damage(tmp_path, monkeypatch, caplog, count):
    for step in (10, 20):
        checkpoints.save(str(tmp_path), checkpoint_of(step))
    Outage(monkeypatch, count)
    assert checkpoints.newest(str(tmp_path)).step == 20
    assert caplog.text.count("does not answer ([Errno 5] Input/output error); trying again") == count
    Outage(monkeypatch, count)
    checkpoints.save(str(tmp_path), checkpoint_of(30))
    assert checkpoints.saved_steps(str(tmp_path)) == [20, 30]


def test_a_file_that_is_gone_when_it_is_read_is_passed_over(tmp_path, monkeypatch):
    checkpoints.save(str(tmp_path), checkpoint_of(10))
    monkeypatch.setattr(checkpoints, "saved_steps", lambda directory: [10, 20])
    assert checkpoints.newest(str(tmp_path)).step == 10


def test_a_file_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    checkpoints.save(str(tmp_path), checkpoint_of(10))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(store, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        checkpoints.newest(str(tmp_path))


def test_a_mount_that_never_answers_is_an_error(tmp_path, monkeypatch):
    checkpoints.save(str(tmp_path), checkpoint_of(10))
    Outage(monkeypatch, -1)
    monkeypatch.setattr(checkpoints, "OUTAGE_SECONDS", 0.01)
    with pytest.raises(ClusterError, match=r"does not answer .*Input/output.*; start again to continue"):
        checkpoints.newest(str(tmp_path))


def test_the_file_just_written_is_kept_beside_later_ones_that_were_damaged(tmp_path, caplog):
    checkpoints.save(str(tmp_path), checkpoint_of(10))
    for step in (500, 600):
        checkpoint_path(tmp_path, step).write_bytes(b"damaged")
    assert checkpoints.newest(str(tmp_path)).step == 10
    checkpoints.save(str(tmp_path), checkpoint_of(20))
    assert checkpoints.saved_steps(str(tmp_path)) == [10, 20]
    assert checkpoints.newest(str(tmp_path)).step == 20


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints.save(str(tmp_path), checkpoint_of(10))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(str(tmp_path), checkpoint_of(20))
    assert checkpoints.newest(str(tmp_path)).step == 10


FOLDER = "gs://runs/checkpoints/key"


@pytest.fixture
def bucket(gcs):
    gcs.bucket("runs")
    return gcs


def test_a_bucket_keeps_the_last_two_and_reads_them_to_the_bit(bucket):
    assert checkpoints.newest(FOLDER) is None
    for step in (5, 10, 20):
        checkpoints.save(FOLDER, checkpoint_of(step))
    assert checkpoints.saved_steps(FOLDER) == [10, 20]
    newest = checkpoints.newest(FOLDER)
    assert newest[:3] == checkpoint_of(20)[:3] and newest.history == checkpoint_of(20).history
    for name, value in checkpoint_of(20).values.items():
        np.testing.assert_array_equal(newest.values[name], value)
    assert checkpoints.newest(FOLDER, 19).step == 10


@pytest.mark.parametrize("kind", ["503", "cut", "lost"])
def test_a_bucket_that_fails_for_a_moment_costs_no_step(bucket, kind):
    checkpoints.save(FOLDER, checkpoint_of(10))
    listing, reading = bucket.inject(kind, r"GET .*/o\?"), bucket.inject(kind, r"GET .*alt=media")
    assert checkpoints.newest(FOLDER).step == 10
    assert (listing.hits, reading.hits) == (1, 1)
    writing = bucket.inject("503" if kind == "cut" else kind, r"POST .*/upload/")
    checkpoints.save(FOLDER, checkpoint_of(20))
    assert writing.hits == 1
    assert checkpoints.saved_steps(FOLDER) == [10, 20]


def test_a_bucket_that_refuses_or_never_answers_is_an_error_and_not_damage(bucket, monkeypatch):
    monkeypatch.setattr(store, "RETRY_SECONDS", 2.0)
    for step in (10, 20):
        checkpoints.save(FOLDER, checkpoint_of(step))
    for kind, error in (("403", InputError), ("503", ClusterError)):
        bucket.inject(kind, r"GET .*step-000000020.npz", times=10**9)
        with pytest.raises(error, match=rf"^{FOLDER}/step-000000020.npz "):
            checkpoints.newest(FOLDER)
        bucket.faults.clear()


def test_damage_in_a_bucket_costs_one_interval(bucket, caplog):
    for step in (10, 20):
        checkpoints.save(FOLDER, checkpoint_of(step))
    store.write_bytes(f"{FOLDER}/step-000000020.npz", b"PK damaged")
    assert checkpoints.newest(FOLDER).step == 10
    assert "step-000000020.npz can't be read" in caplog.text
