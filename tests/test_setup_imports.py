"""Nothing heavy is imported for `marco --help`, nor by the modules that everything else starts from."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("arguments", "package", "fix"),
    [
        (["explain", "--output", "o", "{images}"], "tensorflow", SET_UP),
        (["released", "--output", "o"], "keras", SET_UP),
        (["run", "--preset", "local", "--output", "o"], "absl", SET_UP),
        (["compare", "a", "b"], "pandas", SET_UP),
        (["serve"], "fastapi", "pip install '.[serve]'"),
        (["predict", "--model", "gs://a/b", "--output", "s.csv", "{images}"], "google", "pip install '.[cluster]'"),
        (["deploy", "push", "--help"], "google", "pip install '.[cluster]'"),
        (["submit", "a.yaml"], "urllib3", "pip install '.[cluster]'"),
    ],
)
def test_what_needs_more_says_how_to_get_it_in_one_line(
    arguments: list[str], package: str, fix: str, tmp_path: Path, real_images: dict[str, Path]
) -> None:
    folder = next(iter(real_images.values())).parent
    missing = sorted({*HEAVY, "absl", "fastapi", "google.api_core", "google.auth", "google.cloud", "urllib3"})
    code = f"""
        import importlib.abc, sys
        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name in {missing}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Missing())
        sys.argv[1:] = {[argument.format(images=folder) for argument in arguments]}
        from pipelines import cli
        cli.main()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert result.returncode == 2
    *_, line = result.stderr.splitlines()
    assert f"this needs {package}" in line
    assert line.endswith(fix)
    assert "Traceback" not in result.stderr
