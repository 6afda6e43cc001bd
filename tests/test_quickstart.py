"""The notebook runs from its first cell to its last, in a fresh process and without network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


@pytest.mark.slow
@pytest.mark.long
def test_the_notebook_scores_draws_and_fine_tunes(tmp_path):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    script = tmp_path / "quickstart.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "MPLBACKEND": "Agg", "http_proxy": "http://127.0.0.1:9"}
    environment |= {"https_proxy": "http://127.0.0.1:9", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert "<ScoredImages by marco-2018: 8 (" in result.stdout
    assert "1 failed>" in result.stdout
    assert "('03c3_B5_ImagerDefaults_6.jpg', 'not a JPEG, PNG, TIFF or BMP image')" in result.stdout
    assert "24 images in WORK/shards" in result.stdout
    assert "## Evaluation" in result.stdout
    assert "| My lab | " in result.stdout


def test_the_notebook_names_no_path_of_a_machine():
    text = NOTEBOOK.read_text()
    assert not [word for word in ("/tmp/", "/home/", "/work/", "/root/") if word in text]
