"""scripts/check_prose.py finds each word and name that this project does not use, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_prose.py"
PHRASES = [
    "it is told so",
    "what mends it",
    "the value is none of these",
    "writes a row an image",
    "a file a class",
    "training went on with step 3",
    "a file that there is not",
    "lists what there is",
    "this is there for tests",
    "the rest is not looked at",
    "a preset of one's own",
    "as it is said",
    "the image at hand",
    "begins once more",
    "begins anew",
]
BINDINGS = [
    "told = 1",
    "def given(): ...",
    "def read(wanted): ...",
    "class held: ...",
    "[one.name for one in images]",
    "class Answer:\n    said: str",
    "class Answer:\n    def __init__(self):\n        self.there = 1",
    "import os as one",
    "if (told := read()): ...",
    "try: ...\nexcept ValueError as told: ...",
    "with open(path) as given: ...",
]
CLEAN = '''
"""Writes one row per image; where there is none, the file is empty. The class of a row is an index."""

# An image that a user adds is read once; moreover it is kept.
def write(images: list[str], settings: dict) -> None:
    """Raises InputError if `settings.one` is missing."""
    for image in images:
        print(settings["given"], image.there, image.told())
'''


def check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("phrase", PHRASES)
def test_each_phrase_is_found_in_comments_strings_and_documents(tmp_path: Path, phrase: str) -> None:
    half, rest = phrase.rsplit(" ", 1)
    texts = {
        "comment.py": f"value = 1  # {phrase}\n",
        "docstring.py": f'"""A module: {half}\n{rest}, over two lines."""\n',
        "message.py": f'print(f"{{1}} {phrase}")\n',
        "page.md": f"# Title\n\n- {half}\n  {rest}\n",
        "report.html": f"<p>{phrase}</p>\n",
        "values.yaml": f"key: 1 # {phrase}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    result = check(tmp_path)
    assert result.returncode == 1
    assert {line.split(":")[0].rsplit("/", 1)[-1] for line in result.stdout.splitlines()} == set(texts)


@pytest.mark.parametrize("code", BINDINGS)
def test_each_kind_of_binding_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(f"{code}\n")
    result = check(tmp_path / "module.py")
    assert result.returncode == 1
    (line,) = result.stdout.splitlines()
    assert ": the name " in line


def test_the_line_and_a_suggestion_are_printed(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("Fine.\n\nThe fault is mended.\n")
    assert check(tmp_path / "page.md").stdout == f"{tmp_path}/page.md:3: mended: fix\n"


def test_plain_text_and_code_pass(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(CLEAN)
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "page.html").write_text("as it was told")
    result = check(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
