"""Nothing heavy is imported for `marco --help`, nor by the modules that everything else starts from."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

from marco_scoring import serving
from pipelines import commands

HEAVY = {"apache_beam", "cv2", "keras", "kfp", "matplotlib", "mlflow", "pandas", "sklearn", "tensorflow", "tfx"}
LIGHT = [
    "marco_data.contract",
    "marco_data.image_files",
    "marco_data.name_tables",
    "marco_data.progress",
    "marco_model.errors",
    "marco_model.labels",
    "marco_scoring.plate_report",
    "marco_scoring.plates",
    "marco_scoring.prediction",
    *(f"marco_scoring.serving.{module.name}" for module in pkgutil.iter_modules(serving.__path__)),
    "pipelines.cli",
    *(f"pipelines.commands.{module.name}" for module in pkgutil.iter_modules(commands.__path__)),
]


@pytest.mark.parametrize("module", LIGHT)
def test_import_brings_nothing_heavy(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert HEAVY.isdisjoint(json.loads(result.stdout))
