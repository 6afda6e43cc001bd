"""Finds words and names that this project does not use; CONTRIBUTING.md, "Style", says what it writes instead.

    python scripts/check_prose.py [FILE or FOLDER ...]

Without arguments it reads the whole project. In Python it reads comments, strings and the names that the code binds; of
.md, .html, .jinja, .yaml and .yml files it reads all text. It prints `file:line: words: suggestion` and ends with exit
status 1 where it finds any.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".md", ".html", ".jinja", ".yaml", ".yml"}
# The files that must spell out the words.
EXEMPT = {Path(__file__).resolve(), *(ROOT / "tests" / name for name in ("test_setup_lint.py", "test_setup_prose.py"))}
# Folders of build outputs, which are not the project's text.
SKIPPED = {"_build", "__pycache__", "node_modules", "runs"}

PHRASES = {
    "told": "name the thing: reported, passed, named",
    r"mend(?:s|ed|ing)?": "fix",
    "is none": '"is not a ...", or "there is none"',
    r"an? (?:row|line|column|step|folder|file|version|image|class|run) an? [a-z]+": '"one ... per ..."',
    r"(?:go|goes|went|gone) on with": "continue with",
    "that there is not": '"that does not exist"',
    "what there is": "name the thing",
    "is there for": '"is for"',
    r"(?:is|are) not looked at": '"is ignored"',
    "of one's own": '"your own"',
    "as it is said": "leave it out",
    "at hand": "available",
    "once more": "again",
    "anew": "again",
}
NAMES = {
    "told": "message, answer, settings",
    "one": "the singular of what it runs over",
    "given": "what it is: options, value, request",
    "there": "existing, or what it is",
    "said": "message, answer",
    "wanted": "expected, requested",
    "held": "what it holds",
}
# Words may be apart by an end of line in a comment or string. "There is none" is plain English.
_GAP = r"[\s#\"'*>|]+"
_PATTERNS = [
    (re.compile(rf"(?<![\w-])(?<!there ){phrase.replace(' ', _GAP)}(?![\w-])"), suggestion)
    for phrase, suggestion in PHRASES.items()
]


def prose_of_python(source: str) -> str:
    """Returns the source with everything but comments and strings blanked, line by line."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    lines = [[" "] * len(line) for line in source.splitlines()]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in kinds:
            continue
        (row, column), (last, end) = token.start, token.end
        for number, text in enumerate(source.splitlines()[row - 1 : last], row):
            first, stop = column if number == row else 0, end if number == last else len(text)
            lines[number - 1][first:stop] = text[first:stop]
    return "\n".join("".join(line) for line in lines)


def bound_names(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and name of every function, class, parameter, variable and attribute that the source binds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.lineno, node.name


def problems(path: Path) -> list[tuple[int, str, str]]:
    """Returns line, words and suggestion for each finding in a file."""
    source = path.read_text(encoding="utf-8")
    python = path.suffix == ".py"
    text = prose_of_python(source) if python else source
    found = [
        (text.count("\n", 0, match.start()) + 1, re.sub(r"\s[\s#\"']*", " ", match[0]), suggestion)
        for pattern, suggestion in _PATTERNS
        for match in pattern.finditer(text)
    ]
    if python:
        found += [
            (line, f"the name {name}", f"choose another: {NAMES[name]}")
            for line, name in bound_names(source)
            if name in NAMES
        ]
    return sorted(found)


def files(paths: list[Path]) -> Iterator[Path]:
    """Yields the files to read in the order of their paths."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            inside = file.relative_to(path).parts if path.is_dir() else ()
            hidden = any(part.startswith(".") or part in SKIPPED for part in inside)
            if file.is_file() and file.suffix in TEXT | {".py"} and not hidden and file.resolve() not in EXEMPT:
                yield file


def main(arguments: list[str]) -> int:
    """Prints the findings and returns the exit status."""
    everything = [path for path in sorted(ROOT.iterdir()) if not path.name.startswith(".") and path.name not in SKIPPED]
    count = 0
    for file in files([Path(argument) for argument in arguments] or everything):
        for line, words, suggestion in problems(file):
            shown = file.relative_to(Path.cwd()) if file.is_absolute() and file.is_relative_to(Path.cwd()) else file
            print(f"{shown}:{line}: {words}: {suggestion}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
