"""The folder that the step and the replicas share: the job, what it reads, and the model that comes back."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tempfile

import tensorflow as tf

from components.trainer.job import Job
from marco_data.progress import progress
from marco_model.errors import InputError


def folder(place: str, key: str) -> pathlib.Path:
    """Returns the folder of the training `key` below `place`, made if it was not there.

    Raises `InputError` where `place` is no absolute path, or can't be written.
    """
    if not place.startswith("/"):
        raise InputError(
            f"cluster.shared is {place!r} and cluster.replicas is set; give a path in one of cluster.volumes"
        )
    made = pathlib.Path(place) / "trainings" / key
    try:
        made.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=made):
            pass
    except OSError as error:
        raise InputError(
            f"cluster.shared {place} can't be written ({error.strerror}); mount a volume there that user {os.getuid()} "
            "may write"
        ) from error
    return made


def move_in(job: Job, place: str, own: pathlib.Path) -> Job:
    """Returns the job as replicas see it: all files below `place`, the model into `own`; copies what lies elsewhere."""
    inside = {
        "train_files": _copied(job.train_files, place, own / "data" / "train"),
        "eval_files": _copied(job.eval_files, place, own / "data" / "eval"),
    }
    checkpoints = job.checkpoints
    if not ("://" in checkpoints or _within(checkpoints, place)):
        checkpoints = f"{place.rstrip('/')}/checkpoints/{job.key}"
    model = own / "model" / pathlib.PurePosixPath(job.model_directory).name
    return dataclasses.replace(job, checkpoints=checkpoints, model_directory=str(model), **inside)


def _copied(files: list[str], place: str, target: pathlib.Path) -> list[str]:
    """Returns where the files are for all; what has its name in `target` is whole."""
    outside = [file for file in files if "://" not in file and not _within(file, place)]
    # Files of several folders may have one name.
    there = {file: target / f"{number:05d}-{pathlib.PurePath(file).name}" for number, file in enumerate(outside)}
    missing = {file: copy for file, copy in there.items() if not _same(file, copy)}
    if missing:
        target.mkdir(parents=True, exist_ok=True)
        size = sum(os.path.getsize(file) for file in missing)  # noqa: PTH202
        room = shutil.disk_usage(target).free
        if size > room:
            raise InputError(f"{target} has {room:,} bytes left, the examples have {size:,}; give cluster.shared more")
        with progress(f"Copying to {target}", len(missing), "files") as advance:
            for file, copy in missing.items():
                aside = copy.with_name(f"{copy.name}.partial")
                shutil.copyfile(file, aside)
                aside.replace(copy)
                advance()
    return [str(there.get(file, file)) for file in files]


def _same(file: str, copy: pathlib.Path) -> bool:
    return copy.is_file() and copy.stat().st_size == os.path.getsize(file)  # noqa: PTH202


def _within(path: str, place: str) -> bool:
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(place))


def move_out(inside: Job, job: Job) -> None:
    """Puts the model that the replicas left for `inside`, with what lies beside it, where `job` wants it."""
    source = pathlib.Path(inside.model_directory).parent
    target = job.model_directory.rstrip("/").rpartition("/")[0]
    for directory, _, files in os.walk(source):
        there = "/".join((target, *pathlib.Path(directory).relative_to(source).parts))
        tf.io.gfile.makedirs(there)
        for file in files:
            tf.io.gfile.copy(f"{directory}/{file}", f"{there}/{file}", overwrite=True)
