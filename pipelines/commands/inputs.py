"""What commands that take images and a model have in common."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer


def images(paths: Sequence[Path]) -> list[Path]:
    """Returns the image files among and below `paths`; raises `InputError` where there are none."""
    from marco_data.image_files import ENDINGS, find_images
    from marco_model.errors import InputError

    files = find_images(paths)
    if not files:
        raise InputError(f"no images in {', '.join(map(str, paths))}; endings looked for: {' '.join(ENDINGS)}")
    return files


def model_directory(model: str | None, doing: str) -> Path:
    """Returns where the SavedModel is: `model`'s, or without one the published classifier's, which is told.

    One on `gs://` is downloaded first, into a folder that is removed when the process ends. `doing` says what is done
    with it, such as `scoring with`. Raises `InputError` where there is none.
    """
    from marco_data.object_store import is_object
    from marco_model.model_directory import saved_model_directory

    if model is None:
        from marco_model.released import published_directory

        typer.echo(f"no --model given: {doing} the classifier published in 2018", err=True)
        return saved_model_directory(published_directory())
    if is_object(model):
        from components.pusher.bucket import download

        folder = tempfile.mkdtemp(prefix="marco-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return download(model, Path(folder))
    return saved_model_directory(model)
