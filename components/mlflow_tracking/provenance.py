"""Where a run comes from: the commit, the versions at work, the data."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("tensorflow", "keras", "tfx", "tensorflow-model-analysis", "apache-beam", "numpy", "mlflow")


def runtime_versions() -> dict[str, str]:
    """Returns name → version of Python and the packages that matter, without importing them."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def commit(folder: str | Path | None = None) -> tuple[str, bool] | None:
    """Returns (commit, whether tracked files differ) of the checkout around `folder`, or None if there is none."""
    where = str(folder or Path(__file__).parent)

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", where, *arguments], capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
