"""The light install: a new environment with the project and no extra scores, draws a plate page and imports."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
MOST_BYTES = 300e6


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **options)


def uv_pip(*arguments: str | Path) -> str:
    """Returns what `uv pip` prints; skips the test where no package index is reachable."""
    result = run(UV, "pip", *arguments)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        if any(words in result.stderr for words in ("error sending request", "Connection", "dns error", "timed out")):
            pytest.skip(f"no package index is reachable: {reason}")
        pytest.fail(result.stderr)
    return result.stdout


@pytest.mark.long
@pytest.mark.parametrize("python", ["3.10", "3.13"])
@pytest.mark.parametrize("platform", ["windows", "aarch64-apple-darwin", "aarch64-manylinux_2_28"])
def test_every_system_has_wheels_of_all_packages(platform, python):
    wheels = ("--only-binary", ":all:", "--python-platform", platform, "--python-version", python)
    packages = uv_pip("compile", "--no-annotate", "--no-header", *wheels, ROOT / "pyproject.toml")
    assert {"onnxruntime", "simplejpeg"} <= {line.partition("==")[0] for line in packages.splitlines()}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The folder of the new environment's programs."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    assert run(UV, "venv", "--python", sys.executable, folder).returncode == 0
    uv_pip("install", "--python", folder / "bin" / "python", ROOT)
    return folder / "bin"


@pytest.fixture(scope="module")
def variables(tmp_path_factory) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return inherited | {"MARCO_CACHE": str(tmp_path_factory.mktemp("cache"))}


def test_it_is_small_and_has_no_tensorflow(environment):
    packages = run(UV, "pip", "list", "--python", environment / "python").stdout
    for name in ("tensorflow", "tfx", "apache-beam", "mlflow", "keras"):
        assert f"\n{name} " not in packages
    files = {file.stat().st_ino: file.stat().st_size for file in environment.parent.rglob("*") if file.is_file()}
    assert sum(files.values()) < MOST_BYTES


def test_the_published_classifier_scores_as_ever(environment, variables, real_images, tmp_path):
    folder = next(iter(real_images.values())).parent
    command = (environment / "marco", "predict", "--output", "scores.csv", "--report", "plate.html", folder)
    result = run(*command, cwd=tmp_path, env=variables)
    if "cannot be fetched" in result.stderr:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr
    assert "fetching the published classifier once" in result.stderr
    with (tmp_path / "scores.csv").open() as file:
        scores = {Path(row["path"]).name: float(row["crystals"]) for row in csv.DictReader(file)}
    assert scores["crystals_10.jpeg"] == pytest.approx(0.9156436, abs=1e-4)
    assert scores["precipitate_216.jpeg"] == pytest.approx(0.4465934, abs=1e-4)
    assert (tmp_path / "plate.html").stat().st_size > 10_000
    assert "fetching" not in run(*command, cwd=tmp_path, env=variables).stderr


def test_sets_are_imported_and_inspected(environment, real_images, tmp_path):
    for name, image in real_images.items():
        group = tmp_path / "drops" / name.partition("_")[0].title()
        group.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, group)
    imported = run(environment / "marco", "data", "import", "--output", "shards", "drops", cwd=tmp_path)
    assert imported.returncode == 0, imported.stderr
    assert "6 images in shards" in imported.stdout
    inspected = run(environment / "marco", "data", "inspect", "--contact-sheet", "sheet.png", "shards", cwd=tmp_path)
    assert inspected.returncode == 0, inspected.stderr
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["explain", "--output", "o", "{images}"], "make env && . .venv/bin/activate"),
        (["run", "--preset", "local", "--output", "o"], "make env && . .venv/bin/activate"),
        (["serve"], "pip install '.[serve]'"),
        (["predict", "--model", "gs://a/b", "--output", "s.csv", "{images}"], "pip install '.[cluster]'"),
    ],
)
def test_what_needs_more_says_how_to_get_it(environment, variables, real_images, tmp_path, arguments, fix):
    folder = next(iter(real_images.values())).parent
    filled = [argument.format(images=folder) for argument in arguments]
    result = run(environment / "marco", *filled, cwd=tmp_path, env=variables)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(fix)
    assert "Traceback" not in result.stderr
