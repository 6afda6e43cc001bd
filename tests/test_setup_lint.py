"""Each rule of `make lint` fails on a planted fault, in a copy of the packages."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PACKAGES = ("marco_model", "marco_data", "marco_scoring", "components", "pipelines")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in (*PACKAGES, "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(tree: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of this environment in the copy, whose packages come before the installed ones."""
    return subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@functools.cache
def expect_clean(tree: Path, *command: str | Path) -> None:
    clean = run(tree, *command)
    assert clean.returncode == 0, clean.stdout + clean.stderr


def plant(tree: Path, files: dict[str, str], *command: str | Path) -> str:
    """Returns the output of a command that succeeds on the copy and fails on it with some more files."""
    expect_clean(tree, *command)
    for name, text in files.items():
        (tree / name).write_text(text)
    try:
        planted = run(tree, *command)
    finally:
        for name in files:
            (tree / name).unlink()
    assert planted.returncode == 1, planted.stdout + planted.stderr
    return planted.stdout


@pytest.fixture(scope="module")
def report_of_circles(tree: Path) -> str:
    """What import-linter reports of a circle in each package."""
    circles = {}
    for package in PACKAGES:
        circles[f"{package}/planted_left.py"] = f"from {package} import planted_right\n"
        circles[f"{package}/planted_right.py"] = f"from {package} import planted_left\n"
    return plant(tree, circles, "lint-imports", "--no-cache")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_circle_between_siblings_is_found(report_of_circles: str, package: str) -> None:
    assert "No circles between siblings BROKEN" in report_of_circles
    found = report_of_circles.partition(f"No cycles are allowed in {package}.")[2].partition("No cycles")[0]
    assert "planted_left" in found and "planted_right" in found


def test_an_import_upwards_is_found(tree: Path) -> None:
    report = plant(tree, {"marco_model/planted.py": "from pipelines import cli\n"}, "lint-imports", "--no-cache")
    assert "Dependencies point one way BROKEN" in report


def test_an_untyped_function_is_found_in_every_package(tmp_path: Path) -> None:
    """Packages of the same names, empty but for what is planted, are checked in a second."""
    packages = (*PACKAGES, "benchmarks")
    for name in packages:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    untyped = {f"{name}/planted.py": "def planted(value):\n    return value\n" for name in packages}
    report = plant(tmp_path, untyped, "mypy")
    for name in untyped:
        assert f"{name}:1: error: Function is missing a type annotation" in report


def test_a_fault_of_style_is_found(tree: Path) -> None:
    report = plant(tree, {"marco_model/planted.py": "import os\n"}, "ruff", "check", "--no-cache", ".")
    assert "F401" in report


def test_a_banned_word_is_found(tree: Path) -> None:
    # In a folder that is otherwise clean.
    (tree / "clean").mkdir()
    planted = {"clean/planted.py": "told = 1\n"}
    report = plant(tree, planted, "python", ROOT / "scripts" / "check_prose.py", "clean")
    assert "planted.py:1: the name told" in report
