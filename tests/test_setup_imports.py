"""Nothing heavy is imported for `marco --help`, nor by the modules that everything else starts from."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from marco_scoring import serving
from pipelines import commands

HEAVY = {
    *("apache_beam", "cv2", "keras", "kfp", "matplotlib", "mlflow", "pandas", "scipy", "sklearn", "tensorflow", "tfx")
}
"""What the light install leaves out is among these, and no scoring needs it."""
LIGHT = [
    "marco_data.importing",
    "marco_data.contract",
    "marco_data.image_files",
    "marco_data.name_tables",
    "marco_data.progress",
    "marco_model.errors",
    "marco_model.labels",
    "marco_model.load",
    "marco_model.pixels",
    "marco_model.published",
    "marco_scoring.plate_report",
    "marco_scoring.plates",
    "marco_scoring.prediction",
    *(f"marco_scoring.serving.{module.name}" for module in pkgutil.iter_modules(serving.__path__)),
    "pipelines.cli",
    *(f"pipelines.commands.{module.name}" for module in pkgutil.iter_modules(commands.__path__)),
]


POSIX = ("fcntl", "grp", "pwd", "resource", "termios")
"""Modules that Windows lacks."""


@pytest.mark.parametrize("module", LIGHT)
def test_import_brings_nothing_heavy_and_needs_no_posix(module: str) -> None:
    code = f"""if True:
        import json, sys
        sys.modules.update(dict.fromkeys({POSIX}))
        import {module}
        print(json.dumps([name for name in sys.modules if '.' not in name]))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert HEAVY.isdisjoint(json.loads(result.stdout))


@pytest.mark.parametrize("images", ["crystals_10.jpeg", "."])
def test_scoring_needs_nothing_heavy(images: str, tmp_path: Path, real_images: dict[str, Path]) -> None:
    folder = next(iter(real_images.values())).parent
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys({sorted(HEAVY)}))  # To import one of them is an error now.
        sys.argv[1:] = ["predict", "--output", "scores.csv", "--report", "plate.html", {str(folder / images)!r}]
        from pipelines import cli
        cli.main()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + (len(real_images) if images == "." else 1)


SET_UP = "in the project's folder: make env && . .venv/bin/activate"
MISSING = sorted({*HEAVY, "absl", "fastapi", "google.api_core", "google.auth", "google.cloud", "requests", "urllib3"})
LIGHT_INSTALL = f"""
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from pipelines import cli
"""
"""Code after which what the light install leaves out cannot be imported."""


def marco_in_light_install(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"{LIGHT_INSTALL}sys.argv[1:] = {arguments}\ncli.main()\n"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=folder, env=environment
    )


@pytest.mark.parametrize(
    ("arguments", "package", "fix"),
    [
        (["explain", "--output", "o", "{images}"], "tensorflow", SET_UP),
        (["released", "--output", "o"], "keras", SET_UP),
        (["run", "--preset", "local", "--output", "o"], "absl", SET_UP),
        (["compare", "a", "b"], "pandas", SET_UP),
        (["ui", "--no-browser"], "mlflow", SET_UP),
        (["models", "list"], "mlflow", SET_UP),
        (["models", "promote", "1"], "mlflow", SET_UP),
        (["serve"], "fastapi", "pip install '.[serve]'"),
        (["predict", "--model", "gs://a/b", "--output", "s.csv", "{images}"], "google", "pip install '.[cluster]'"),
        (["deploy", "push", "--model", "gs://a/b"], "google", "pip install '.[cluster]'"),
        (["submit", "a.yaml"], "urllib3", "pip install '.[cluster]'"),
    ],
)
def test_what_needs_more_says_how_to_get_it_in_one_line(
    arguments: list[str], package: str, fix: str, tmp_path: Path, real_images: dict[str, Path]
) -> None:
    folder = next(iter(real_images.values())).parent
    (tmp_path / "mlflow.db").touch()
    result = marco_in_light_install([argument.format(images=folder) for argument in arguments], tmp_path)
    assert result.returncode == 2
    *_, line = result.stderr.splitlines()
    assert f"this needs {package}" in line
    assert line.endswith(fix)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--preset", "finetun"], "there is no preset 'finetun'"),
        (["--set", "recipe.stps=1"], "unknown key 'recipe.stps'"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_before_what_is_missing(
    arguments: list[str], mistake: str, tmp_path: Path
) -> None:
    result = marco_in_light_install(["run", *arguments], tmp_path)
    assert (result.returncode, "this needs" in result.stderr) == (2, False)
    assert mistake in result.stderr


def test_the_help_of_every_command_needs_nothing_more() -> None:
    code = f"""{LIGHT_INSTALL}
import typer.main, typer.testing
def commands(group, path):
    context = group.context_class(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield from commands(command, [*path, name]) if hasattr(command, "list_commands") else [[*path, name]]
known = list(commands(typer.main.get_command(cli.app), []))
for path in known:
    result = typer.testing.CliRunner().invoke(cli.app, [*path, "--help"])
    assert result.exit_code == 0, (path, result.exception)
print(known)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "['deploy', 'push']" in result.stdout
