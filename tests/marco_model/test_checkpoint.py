import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco_model import training


def made(step, seed=0):
    rng = np.random.default_rng(seed)
    values = {"weight/a/kernel": rng.normal(size=(3, 5)).astype(np.float32), "weight/b": np.float32(seed)}
    return training.Checkpoint(step, step // 2, 0.1 + 0.2, values)


def path(folder, step):
    return folder / f"step-{step:09d}.npz"


def test_what_is_read_is_what_was_saved_to_the_bit(tmp_path):
    saved = made(12, 3)
    training.save_checkpoint(str(tmp_path), saved)
    newest = training.newest_checkpoint(str(tmp_path))
    assert newest[:3] == saved[:3]
    assert newest.values.keys() == saved.values.keys()
    for name, value in saved.values.items():
        assert newest.values[name].dtype == np.float32
        np.testing.assert_array_equal(newest.values[name], value)


def test_the_last_two_are_kept_and_nothing_else_is_left(tmp_path):
    for name in (".step-000000007.npz.0123456789ab.partial", "step-000000007.npz.partial"):
        (tmp_path / name).write_bytes(b"half")
    for step in (5, 10, 900, 1000):
        training.save_checkpoint(str(tmp_path), made(step))
    assert training.saved_steps(str(tmp_path)) == [900, 1000]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_checkpoints_has_none(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "step-000000004.npz.partial").write_bytes(b"half")
    assert training.newest_checkpoint(str(tmp_path)) is None
    assert training.newest_checkpoint(str(tmp_path / "missing")) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_happens_to_the_newest_file_it_is_read_whole_or_the_one_before_is(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoints")
    training.save_checkpoint(str(folder), made(10, 1))
    training.save_checkpoint(str(folder), made(20, 2))
    content = bytearray(path(folder, 20).read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1), label="at") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), label="byte")] ^= data.draw(st.integers(1, 255))
    path(folder, 20).write_bytes(content)
    newest = training.newest_checkpoint(str(folder))
    expected = made(newest.step, newest.step // 10)
    assert newest.step in (10, 20)
    for name, value in expected.values.items():
        np.testing.assert_array_equal(newest.values[name], value)


def test_one_that_cannot_be_read_is_named(tmp_path, caplog):
    training.save_checkpoint(str(tmp_path), made(10))
    path(tmp_path, 20).write_bytes(b"")
    assert training.newest_checkpoint(str(tmp_path)).step == 10
    assert "step-000000020.npz can't be read" in caplog.text


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    training.save_checkpoint(str(tmp_path), made(10))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        training.save_checkpoint(str(tmp_path), made(20))
    assert training.newest_checkpoint(str(tmp_path)).step == 10
