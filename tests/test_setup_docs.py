"""The documentation names what exists: commands and their options, modules, make targets, files of the repository."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "k8s/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# Words of a usage line that stand for what the user fills in, and marks of shell syntax that ends a command.
END = re.compile(r"\s(\||>|&&?|#|─)(\s|$)|…")


def command_lines(text: str) -> list[str]:
    """Returns the lines of a page that are typed into a shell, without prompts; continued lines are joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^ *(?:\$ )?((?:marco|make|python -m|\.venv/bin/\S+) .*)$", joined, re.MULTILINE)
    return [END.split(line, maxsplit=1)[0].strip() for line in lines]


def lines_of(program: str) -> list[pytest.ParameterSet]:
    return [
        pytest.param(line.removeprefix(program).strip(), id=f"{page.relative_to(ROOT)}: {line}")
        for page in PAGES
        for line in dict.fromkeys(command_lines(page.read_text()))
        if line.startswith(f"{program} ")
    ]


@pytest.fixture(scope="module")
def marco():
    from pipelines.cli import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("line", lines_of("marco"))
def test_a_documented_command_has_its_options(line, marco):
    words = shlex.split(line)
    command = marco
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        command = command.get_command(None, words.pop(0))
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("line", lines_of("python -m"))
def test_a_documented_module_exists(line):
    assert importlib.util.find_spec(line.split()[0])


@pytest.mark.parametrize("line", lines_of("make"))
def test_a_documented_target_exists(line):
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line.split()[0] in targets


FOLDERS = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
FILE = re.compile(rf"(?<![\w/.-])((?:{FOLDERS})/[\w/.-]+\.(?:py|sh|md|yaml|proto|pbtxt))\b")


def missing_files(path: Path) -> list[str]:
    return sorted(name for name in FILE.findall(path.read_text()) if not (ROOT / name).exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_exist(page):
    assert not missing_files(page)


def test_the_files_that_the_sources_name_exist():
    packages = ("marco_model", "marco_data", "marco_scoring", "components", "pipelines", "benchmarks", "scripts")
    sources = [
        path
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".pbtxt", ".yaml", ".sh"}
    ]
    assert {str(path): missing_files(path) for path in sources if missing_files(path)} == {}
