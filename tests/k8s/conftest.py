"""The modules beside the tests, and what k8s/ renders to."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _beside(name: str) -> ModuleType:
    qualified = f"k8s_{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, Path(__file__).with_name(f"{name}.py"))
        module = sys.modules[qualified] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[qualified]


@pytest.fixture(scope="session")
def beside():
    """`beside("policy")` is the module tests/k8s/policy.py."""
    return _beside


_render = functools.lru_cache(lambda folder: _beside("rendering").render(folder))


# `base` with the component that watches images.
MONITORED = "../tests/k8s/monitored"


@pytest.fixture(params=["base", "overlays/gpu", "overlays/small", MONITORED])
def objects(request, beside) -> list[dict[str, Any]]:
    """The objects of one folder of k8s/, a fresh copy."""
    return beside("rendering").copied(_render(request.param))


@pytest.fixture
def monitored(beside) -> list[dict[str, Any]]:
    """The objects of k8s/base and k8s/monitoring, a fresh copy."""
    return beside("rendering").copied(_render(MONITORED))


@pytest.fixture
def base(beside) -> list[dict[str, Any]]:
    """The objects of k8s/base, a fresh copy."""
    return beside("rendering").copied(_render("base"))
