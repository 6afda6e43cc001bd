"""The checkpoints of a training: files of every number of its state, in a folder of this machine or on `gs://`.

A checkpoint has its name only when it is complete. The newest and the one before it are kept, so that damage costs an
interval and not the training. A store that does not answer is no damage: it is tried again, and then an error.
"""

import dataclasses
import errno
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from google.api_core import exceptions, retry

from marco_model import errors, store

log = logging.getLogger(__name__)

KEPT = 2
OUTAGE_SECONDS = 180.0
"""How long a mounted folder may not answer before it is an error; on `gs://` it is `store.RETRY_SECONDS`."""

_NAME = re.compile(r"step-(\d{9})\.npz")
_PARTIAL = re.compile(r"\.?step-\d{9}\.npz.*\.partial")
# What a mount raises whose server does not answer.
_OUTAGES = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN}

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Mean cross-entropy and accuracy (a share) on the validation split, of the running average after `step` steps."""

    step: int
    loss: float
    accuracy: float


class Checkpoint(NamedTuple):
    """The state after `step` steps; `best_accuracy` is −1 before the first evaluation, `values` are arrays by name."""

    step: int
    best_step: int
    best_accuracy: float
    values: Mapping[str, np.ndarray]
    history: Sequence[Evaluated] = ()


NOTHING = Checkpoint(0, 0, -1.0, {})
"""The state of a training that has no checkpoint."""


def save(directory: str, checkpoint: Checkpoint) -> str:
    """Writes a checkpoint into `directory` and returns its path; on this machine it is then on the disk.

    It and the one before it are kept; those of later steps, which could not be read when training resumed from an
    earlier one, are removed. Raises `ClusterError` if the store is out of reach.
    """
    path = _path(directory, checkpoint.step)
    about = {
        "step": np.int64(checkpoint.step),
        "best_step": np.int64(checkpoint.best_step),
        "best_accuracy": np.float64(checkpoint.best_accuracy),
        "history": np.array([dataclasses.astuple(past) for past in checkpoint.history], np.float64).reshape(-1, 3),
        # A zip's checksums are those of its members; the count shows whether one is missing from its directory.
        "arrays": np.int64(len(checkpoint.values)),
    }
    content = store.npz({**about, **checkpoint.values})
    _through_outages(lambda: store.write_bytes(path, content), path)
    _through_outages(lambda: _remove_others(directory, checkpoint.step), directory)
    return path


def saved_steps(directory: str) -> list[int]:
    """Returns the steps that have a checkpoint, in order."""
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, _names(directory)) if match)


def newest(directory: str, latest: int | None = None) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole, or None; logs a warning about each that is damaged.

    `latest`: the highest step that counts.

    Raises:
        InputError: access to the bucket is refused.
        ClusterError: the store is out of reach.
    """
    steps = _through_outages(lambda: saved_steps(directory), directory)
    damaged = 0
    for step in reversed([step for step in steps if latest is None or step <= latest]):
        path = _path(directory, step)
        try:
            content = _through_outages(lambda path=path: store.read_bytes(path), path)  # type: ignore[misc]
        except (FileNotFoundError, errors.InputError):
            if store.exists(path):
                raise
            continue  # Removed by another process since it was listed.
        try:
            return _parse(content)
        except Exception as error:  # zipfile and NumPy raise many kinds for a damaged file.
            log.warning("Checkpoint %s can't be read (%s)", path, error)
            damaged += 1
    if damaged:
        log.warning("No checkpoint in %s can be read: training begins again", directory)
    return None


def _through_outages(work: Callable[[], Result], place: str) -> Result:
    """Returns the result of `work`, which is tried again while the mount of `place` does not answer."""

    def warn(error: Exception) -> None:
        log.warning("%s does not answer (%s); trying again", place, errors.one_line(error))

    def passes(error: BaseException) -> bool:
        return isinstance(error, OSError) and error.errno in _OUTAGES

    message = f"{place} does not answer ({{}}); start again to continue from the last checkpoint"
    with errors.translated(errors.ClusterError, message, exceptions.RetryError):
        again = retry.Retry(passes, initial=1.0, maximum=15.0, timeout=OUTAGE_SECONDS, on_error=warn)
        return again(work)()  # type: ignore[no-any-return]


def _path(directory: str, step: int) -> str:
    return f"{directory.rstrip('/')}/step-{step:09d}.npz"


def _names(directory: str) -> list[str]:
    if store.is_object(directory):
        return [uri.rpartition("/")[2] for uri in store.objects_below(directory)]
    folder = Path(directory)
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _remove_others(directory: str, step: int) -> None:
    steps = saved_steps(directory)
    before = [other for other in steps if other < step]
    gone = [_path(directory, other) for other in set(steps) - {step, *before[1 - KEPT :]}]
    if store.is_object(directory):
        store.delete_objects(gone)
        return
    partial = [f"{directory}/{name}" for name in _names(directory) if _PARTIAL.fullmatch(name)]  # Of killed processes.
    for path in [*gone, *partial]:
        Path(path).unlink(missing_ok=True)


def _parse(content: bytes) -> Checkpoint:
    values = store.arrays(content)
    step, best_step, count = (int(values.pop(name)) for name in ("step", "best_step", "arrays"))
    best_accuracy = float(values.pop("best_accuracy"))
    history = [Evaluated(int(past), float(loss), float(share)) for past, loss, share in values.pop("history")]
    if len(values) != count:
        raise ValueError(f"it has {len(values)} of {count} arrays")
    return Checkpoint(step, best_step, best_accuracy, values, history)
