"""The image's recipe and the scripts around it, up to where podman is needed (tests/kubeflow runs the image itself)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_cuda_libraries_are_pinned_and_hashed_and_name_no_address() -> None:
    entries = re.split(r"^(?=\S)", (ROOT / "requirements-gpu.lock").read_text(), flags=re.MULTILINE)[1:]
    assert any(entry.startswith("nvidia-cudnn-cu12==") for entry in entries)
    for entry in entries:
        assert re.match(r"nvidia-[a-z0-9-]+==\S+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+$", entry), entry
        assert "://" not in entry


def test_image_has_no_entrypoint_and_a_numbered_user() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    # The launcher of Kubeflow Pipelines is the entrypoint; only a number lets Kubernetes see that it isn't root.
    assert not re.search(r"^ENTRYPOINT", DOCKERFILE, flags=re.MULTILINE)
    assert re.findall(r"^USER (.+)$", last, flags=re.MULTILINE) == ["1000:0"]


def test_every_copied_file_is_let_through_and_every_package_is_copied() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, flags=re.MULTILINE) for name in line.split()[:-1]
    }
    assert copied == let_through
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied


def image_environment() -> dict[str, str]:
    """Returns the variables of the image's last stage."""
    last = DOCKERFILE.split("\nFROM ")[-1].replace("\\\n", " ")
    settings = " ".join(re.findall(r"^ENV (.+)$", last, flags=re.MULTILINE))
    return dict(setting.split("=", 1) for setting in settings.split())


# Where a driver is mounted: by Google's device plugin (GoogleCloudPlatform/container-engine-accelerators 992db812,
# cmd/nvidia_gpu/nvidia_gpu.go), which tells the loader nothing.
GOOGLES = "/usr/local/nvidia"
# By NVIDIA's container toolkit in an image of Debian (EKS, GPU Operator), beside the system's own libraries.
TOOLKITS = "/usr/lib/x86_64-linux-gnu"


def test_the_loader_looks_where_nvidias_runtime_mounts_the_driver() -> None:
    loader = subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--help"], capture_output=True, text=True, check=True)
    assert f"{TOOLKITS} (system search path)" in loader.stdout
    assert {"compute", "utility"} <= set(image_environment()["NVIDIA_DRIVER_CAPABILITIES"].split(","))


@pytest.mark.slow
def test_tensorflow_loads_the_driver_that_googles_device_plugin_mounts(tmp_path: Path) -> None:
    """Any library stands for the driver, and for the image's CUDA runtime, without which TensorFlow does not look."""
    some_library = Path(TOOLKITS) / "libm.so.6"
    driver, runtime = tmp_path / "nvidia" / "lib64" / "libcuda.so.1", tmp_path / "image"
    for folder in (driver.parent, runtime):
        folder.mkdir(parents=True)
    shutil.copy(some_library, driver)
    shutil.copy(some_library, runtime / "libcudart.so.12")
    mounted = image_environment()["LD_LIBRARY_PATH"].replace(GOOGLES, str(tmp_path / "nvidia"))
    script = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"
    for path, loaded in ((f"{mounted}:{runtime}", True), (str(runtime), False)):
        environment = os.environ | {"LD_LIBRARY_PATH": path, "LD_DEBUG": "libs"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, timeout=300, check=True
        )
        assert (f"calling init: {driver}".encode() in done.stderr) == loaded


@pytest.mark.parametrize(
    ("user", "podman", "message"),
    [
        ("1000", None, "podman is missing: install it"),
        ("0", "exit 125", "podman does not run here: no subuids"),
    ],
)
def test_without_a_working_podman_it_fails_with_the_reason(
    tmp_path: Path, user: str, podman: str | None, message: str
) -> None:
    lines = {"id": f"echo {user}"} | ({"podman": f"echo no subuids >&2; {podman}"} if podman else {})
    for name, line in lines.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("bash", "dirname", "env", "grep", "mktemp", "rm", "tail"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [ROOT / "scripts" / "test_kubeflow.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_unknown_accelerator_is_refused() -> None:
    environment = {"PATH": "/usr/bin:/bin", "ACCELERATOR": "tpu"}
    result = subprocess.run(
        [ROOT / "scripts" / "build_image.sh"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "error: ACCELERATOR is 'tpu'; give cpu or gpu.\n"
