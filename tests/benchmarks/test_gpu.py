import importlib.util
import json
import os
import subprocess
import sys

import pytest

from benchmarks import gpu

TINY = ["--batches", "2", "--steps", "1", "--size", "151", "--depth-multiplier", "0.1"]


@pytest.mark.slow
def test_it_prints_a_table_and_the_rate_of_the_whole_loop_last(capsys):
    gpu.main(["--backend", "tensorflow", *TINY, "--precisions", "float32", "--xla", "off"])
    first, heading, row, fed, answer = capsys.readouterr().out.splitlines()
    assert first.startswith("tensorflow on ")
    assert heading.split() == ["precision", "XLA", "batch", "images/s"]
    assert row.split()[:3] == ["float32", "off", "2"]
    assert float(row.split()[3]) > 0
    assert fed.endswith("end to end, from JPEGs")
    assert json.loads(answer)["peer"] == 1463


def test_a_missing_jax_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="JAX is not installed"):
        gpu.choose_backend("jax")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not a dependency; install it to run this")
def test_the_same_model_trains_on_jax():
    command = [sys.executable, "-m", "benchmarks.gpu", "--backend", "jax", *TINY, "--precisions", "float32"]
    # Compiling for a CPU takes minutes at the default optimization level.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("jax on ")
    assert json.loads(done.stdout.splitlines()[-1])["ours"] > 0
