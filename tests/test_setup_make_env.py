"""scripts/make_env.sh makes a small environment for real: the lock's lines for uv and the build backend alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["small"]
"""
PACKAGES = ("editables", "hatchling", "packaging", "pathspec", "pluggy", "tomli", "trove-classifiers", "uv")


def lock_entries(names: tuple[str, ...]) -> str:
    """The lock's entries for these packages, markers and hashes included."""
    entries = re.split(r"^(?=\S)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    return "".join(entry for entry in entries if entry.split("==")[0] in names)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "__init__.py").write_text("here = __file__\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "requirements.lock").write_text(lock_entries(PACKAGES))
    (folder / "scripts").mkdir()
    for name in ("find_python.sh", "make_env.sh"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    return folder


def make_env(project: Path) -> str:
    """Makes the environment and returns the output of the script."""
    result = subprocess.run(
        [project / "scripts" / "make_env.sh"], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def imports(project: Path, module: str) -> bool:
    return subprocess.run([project / ".venv/bin/python", "-c", f"import {module}"], capture_output=True).returncode == 0


@pytest.mark.long
@pytest.mark.slow
def test_environment_is_made_kept_updated_and_made_again(project: Path) -> None:
    assert "done" in make_env(project)
    assert imports(project, "small") and imports(project, "tomli" if sys.version_info < (3, 11) else "packaging")
    assert make_env(project) == ""

    (project / "requirements.lock").write_text(lock_entries((*PACKAGES, "zipp", "six")))
    assert "installing uv" not in make_env(project)
    assert imports(project, "six")

    # As if killed while installing: an incomplete environment can't be trusted.
    (project / ".venv" / "unfinished").touch()
    (project / ".venv" / "left-over").touch()
    make_env(project)
    assert imports(project, "small")
    assert not (project / ".venv" / "left-over").exists()

    moved = project.rename(project.with_name("moved"))
    make_env(moved)
    uv = subprocess.run([moved / ".venv/bin/pip", "--version"], capture_output=True, text=True)
    assert str(moved) in uv.stdout


@pytest.mark.slow
def test_package_that_is_not_the_locked_one_is_refused(project: Path) -> None:
    lock = project / "requirements.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
    result = subprocess.run(
        [project / "scripts" / "make_env.sh"], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode != 0
    assert "HASH" in result.stderr.upper()
    assert not (project / ".venv" / "made-from").exists()
