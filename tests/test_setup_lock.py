"""requirements.lock satisfies pyproject.toml for both runtimes, and has nothing but names and hashes."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "requirements.lock"
RUNTIMES = [
    {"python_version": "3.10", "python_full_version": "3.10.13"},
    {"python_version": "3.13", "python_full_version": "3.13.5"},
]


def entries() -> list[str]:
    return re.split(r"^(?=\S)", LOCK.read_text(), flags=re.MULTILINE)[1:]


def pins(runtime: dict[str, str]) -> dict[str, str]:
    """Returns the version of each package that the lock has for a runtime."""
    requirements = [Requirement(entry.split(" \\\n")[0].strip()) for entry in entries()]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate(runtime)
    }


def test_every_entry_is_pinned_and_hashed_and_names_no_address() -> None:
    assert len(entries()) > 300
    for entry in entries():
        assert re.match(r"[a-z0-9-]+==\S+ ", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
        assert "://" not in entry and " @ " not in entry


@pytest.mark.parametrize("runtime", RUNTIMES, ids=["compatible", "modern"])
def test_lock_satisfies_what_the_project_asks_for(runtime: dict[str, str]) -> None:
    locked = pins(runtime)
    asked = [Requirement(line) for line in importlib.metadata.requires("marco-pipeline") or []]
    for requirement in asked:
        marker = requirement.marker
        if marker is not None and not any(
            marker.evaluate({**runtime, "extra": extra})
            for extra in ("", "train", "serve", "cluster", "released", "dev")
        ):
            continue
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock: make lock"
        assert requirement.specifier.contains(version), f"{requirement} but {version} is locked: make lock"


def test_each_runtime_has_its_tfx() -> None:
    assert [pins(runtime)["tfx"] for runtime in RUNTIMES] == ["1.16.0", "1.21.0"]
