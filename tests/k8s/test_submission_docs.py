"""The documented commands for a cluster use the namespace and the account that k8s/ makes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from tests.k8s import rendering
from tests.kubeflow import test_local_package

ROOT = Path(__file__).parents[2]


def commands(text: str) -> list[list[str]]:
    """Returns the `marco compile`, `submit` and `schedule` for Kubeflow in the blocks of a text, word by word."""
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"marco (compile|submit|schedule) ", line)
    ]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture(params=["README.md", "docs/kubeflow.md", "docs/cluster.md"])
def documented(request) -> list[tuple[str, dict]]:
    """The commands of a document: name and options."""
    from pipelines.cli import app

    known = typer.main.get_command(app).commands
    words = commands((ROOT / request.param).read_text())
    expected = {"submit", "schedule"} | (set() if request.param == "docs/cluster.md" else {"compile"})
    assert expected <= {name for name, *_ in words}
    return [(name, known[name].make_context(name, list(rest)).params) for name, *rest in words]


def test_runs_use_the_namespace_and_the_account_of_the_manifests(documented, base):
    pick = rendering.pick
    account = pick(base, "ServiceAccount", "marco-pipeline")["metadata"]
    for name, options in documented:
        if name == "compile":
            continue
        assert options["namespace"] == account["namespace"]
        if not (options.get("show") or options.get("remove")):
            assert options["service_account"] == account["name"]


@pytest.mark.parametrize("heading", ["What you see", "What it costs"])
def test_the_tables_of_steps_and_of_their_disk_name_every_step(heading):
    text = (ROOT / "docs" / "kubeflow.md").read_text()
    (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    first_cells = re.findall(r"^\|([^|]*)\|", section, re.MULTILINE)
    assert set(re.findall(r"\b[A-Z]\w+", "\n".join(first_cells))) >= test_local_package.STEPS


def test_models_are_published_where_the_gpu_overlay_serves_them(documented):
    for name, options in documented:
        if name == "compile" and options["root"].startswith("gs://"):
            assert "destination=gs://BUCKET/marco/models" in options["change"]
