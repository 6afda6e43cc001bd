"""The rendered objects of k8s/, as fresh copies that a test may break."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.k8s import rendering

# `base` with the model server, and with the component that watches images, too.
SERVED, MONITORED = "../tests/k8s/served", "../tests/k8s/monitored"


@pytest.fixture(params=[SERVED, "overlays/gpu", "overlays/small", MONITORED])
def objects(request) -> list[dict[str, Any]]:
    """The objects of one folder of k8s/."""
    return copy.deepcopy(rendering.render(request.param))


@pytest.fixture
def monitored() -> list[dict[str, Any]]:
    """The objects of k8s/base, k8s/serving and k8s/monitoring."""
    return copy.deepcopy(rendering.render(MONITORED))


@pytest.fixture
def base() -> list[dict[str, Any]]:
    """The objects of k8s/base and k8s/serving."""
    return copy.deepcopy(rendering.render(SERVED))
