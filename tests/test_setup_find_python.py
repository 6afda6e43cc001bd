"""scripts/find_python.sh on machines made of small scripts: each has its C library, its Pythons and its compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "find_python.sh"


def command(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@dataclass
class Machine:
    """A folder that stands for a machine; `describes` maps the path of a Python to its description of itself."""

    folder: Path
    libc: str = "glibc 2.41"
    system: str = "Linux x86_64"
    compiler: bool = True
    describes: dict[str, str] = field(default_factory=dict)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        bin_folder = self.folder / "bin"
        for tool in ("bash", "env", "head", "sort"):
            bin_folder.mkdir(exist_ok=True)
            (bin_folder / tool).symlink_to(str(shutil.which(tool)))
        command(bin_folder / "getconf", f"echo '{self.libc}'" if self.libc else "exit 1")
        command(bin_folder / "uname", f"echo '{self.system}'")
        if self.compiler:
            command(bin_folder / "c++", "exit 0")
        for path, line in self.describes.items():
            command(self.folder / path, line)
        environment = {"PATH": str(bin_folder), "HOME": str(self.folder / "home"), **environment}
        return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False)


def python(version: str, lacks: str = "") -> str:
    return f"echo '{version} {lacks}'"


@pytest.mark.parametrize(
    ("libc", "describes", "chosen"),
    [
        ("glibc 2.41", {"bin/python3": python("3.13")}, "modern 3.13 bin/python3"),
        ("glibc 2.39", {"bin/python3.10": python("3.10"), "bin/python3": python("3.12")}, "modern 3.12 bin/python3"),
        ("glibc 2.41", {"bin/python3.10": python("3.10")}, "compatible 3.10 bin/python3.10"),
        (
            "glibc 2.41",
            {"bin/python3.14": python("3.14"), "bin/python3.11": python("3.11")},
            "modern 3.11 bin/python3.11",
        ),
        (
            "glibc 2.36",
            {"bin/python3.10": python("3.10"), "bin/python3": python("3.11")},
            "compatible 3.10 bin/python3.10",
        ),
        ("glibc 2.17", {"bin/python3.10": python("3.10")}, "compatible 3.10 bin/python3.10"),
        # A complete version is preferred to one that lacks something.
        (
            "glibc 2.41",
            {"bin/python3.13": python("3.13", "venv headers"), "bin/python3.12": python("3.12")},
            "modern 3.12 bin/python3.12",
        ),
        # A pyenv shim whose version isn't selected fails; the version behind it is found.
        (
            "glibc 2.36",
            {"bin/python3.10": "exit 127", "home/.pyenv/versions/3.10.13/bin/python3.10": python("3.10")},
            "compatible 3.10 home/.pyenv/versions/3.10.13/bin/python3.10",
        ),
        (
            "glibc 2.36",
            {"home/.local/share/uv/python/cpython-3.10.19-linux-x86_64-gnu/bin/python3.10": python("3.10")},
            "compatible 3.10 home/.local/share/uv/python/cpython-3.10.19-linux-x86_64-gnu/bin/python3.10",
        ),
    ],
)
def test_runtime_follows_from_c_library_and_pythons(
    tmp_path: Path, libc: str, describes: dict[str, str], chosen: str
) -> None:
    result = Machine(tmp_path, libc=libc, describes=describes).run()
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().replace(f"{tmp_path}/", "") == chosen


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({"describes": {"bin/python3": python("3.14")}}, ["Python 3.11, 3.12 or 3.13 is needed", "python3-venv"]),
        ({"libc": "glibc 2.36", "describes": {"bin/python3": python("3.11")}}, ["Python 3.10", "pyenv install 3.10"]),
        ({"describes": {"bin/python3": python("3.13", "venv")}}, ["no venv module", "install python3.13-venv"]),
        ({"describes": {"bin/python3": python("3.13", "headers")}}, ["no headers", "install python3.13-dev"]),
        ({"libc": "glibc 2.35", "describes": {"bin/python3": python("3.10", "headers")}}, ["install python3.10-dev"]),
        ({"describes": {"bin/python3": python("3.13")}, "compiler": False}, ["no C++ compiler", "install g++"]),
        ({"libc": "glibc 2.12"}, ["glibc 2.17 or newer", "2.12"]),
        ({"libc": ""}, ["the GNU C library"]),
        ({"system": "Darwin arm64"}, ["Linux on x86_64", "Darwin arm64"]),
    ],
)
def test_a_missing_requirement_is_reported_in_one_sentence(tmp_path: Path, machine: dict, expected: list[str]) -> None:
    result = Machine(tmp_path, **machine).run()
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for words in expected:
        assert words in result.stderr


def test_named_python_is_the_only_one_considered(tmp_path: Path) -> None:
    pythons = {"bin/python3": python("3.13"), "bin/python3.12": python("3.12"), "bin/python3.9": python("3.9")}
    machine = Machine(tmp_path, describes=pythons)
    assert machine.run(PYTHON="python3.12").stdout.split()[:2] == ["modern", "3.12"]


def test_named_python_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    pythons = {"bin/python3": python("3.13"), "bin/python3.9": python("3.9")}
    result = Machine(tmp_path, describes=pythons).run(PYTHON="python3.9")
    assert result.returncode == 1
    assert "PYTHON=python3.9 is not Python 3.11, 3.12 or 3.13" in result.stderr


def test_this_machine_has_what_it_needs() -> None:
    environment = {**os.environ, "PYTHON": ""}
    result = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=False)
    runtime, version, path = result.stdout.split()
    assert runtime == ("compatible" if version == "3.10" else "modern")
    own = subprocess.run(
        [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
    )
    assert own.stdout.strip() == version
