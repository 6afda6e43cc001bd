import importlib.util
import json
import os
import subprocess
import sys

import pytest

import benchmarks
from benchmarks import gpu, input, train_step

TINY = ["--batches", "2", "--steps", "1", "--size", "151", "--depth-multiplier", "0.1"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("short_network")
def test_it_prints_a_table_what_the_fastest_row_consists_of_and_the_rate_of_the_whole_loop_last(tmp_path, capsys):
    images = benchmarks.jpeg_files(benchmarks.IMAGES)
    input.write_images([images[0].read_bytes()], 4, tmp_path)
    options = ["--precisions", "float32", "bfloat16", "--profile", "1", "--records", str(tmp_path)]
    gpu.main(["--backend", "tensorflow", *TINY, *options])
    first, heading, *lines, answer = capsys.readouterr().out.splitlines()
    assert first.startswith("tensorflow on ")
    assert heading.split() == ["precision", "XLA", "batch", "images/s", "TFLOP/s"]
    rows = [line.split() for line in lines[:4]]
    kinds = [[precision, xla, "2"] for precision in ("float32", "bfloat16") for xla in ("off", "on")]
    assert [row[:3] for row in rows] == kinds
    assert all(float(row[3]) > 0 and float(row[4]) >= 0 for row in rows)
    fastest = max(rows, key=lambda row: float(row[3]))[:3]
    parts = {" ".join(line.split()[4:]): line.split() for line in lines[4:7]}
    assert list(parts) == ["no distortions", "input alone, from records", "end to end, from records"]
    assert all(row[:3] == fastest and float(row[3]) > 0 for row in parts.values())
    assert "ms a step; in kernels on the CPU" in lines[7]
    assert lines[-1].endswith("all others")
    assert json.loads(answer)["ours"] == pytest.approx(float(parts["end to end, from records"][3]), abs=0.05)
    assert json.loads(answer)["peer"] == 1463


def test_too_few_records_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "measure", lambda *_: {gpu.Setting("float32", "off", 64): 1.0})
    monkeypatch.setattr(gpu, "rate", lambda *_: 1.0)
    monkeypatch.setattr(train_step, "paper_step", lambda **_: None)
    monkeypatch.setattr(train_step.TensorFlow, "step", lambda *_, **__: None)
    input.write_images([benchmarks.jpeg_files(benchmarks.IMAGES)[0].read_bytes()], 4, tmp_path)
    with pytest.raises(SystemExit, match="4 records do not make a batch of 64"):
        gpu.main(["--backend", "tensorflow", "--size", "16", "--records", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "on_gpu", "kind"),
    [
        ("fusion.127", True, "fusion"),
        ("sm90_xmma_fprop<float, 3>", True, "sm90_xmma_fprop"),
        ("Conv2d_1a/convolution:_MklNativeConv2D", False, "_MklNativeConv2D"),
        ("EagerLocalExecute: __inference_step_5", False, ""),
        ("ThreadpoolListener::Record", False, ""),
        ("Run", False, ""),
    ],
)
def test_a_profile_names_kernels_without_numbers_and_operations_by_type(name, on_gpu, kind):
    assert train_step.kind_of(name, on_gpu=on_gpu) == kind


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
