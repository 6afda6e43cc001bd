"""The image's recipe and the scripts around it, up to where podman is needed (tests/kubeflow runs the image itself)."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines import canary_search

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


@pytest.mark.long
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


# The secrets that a build step may mount, and all that it does with one.
MOUNTED = {"apt.conf", "sources.list", "network", "ca", "pip.conf", "uv.toml"}
USES = (
    "if [ -s /run/secrets/apt.conf ]; then export APT_CONFIG=/run/secrets/apt.conf; fi",
    "if [ -s /run/secrets/network ]; then . /run/secrets/network; fi",
)


def test_the_recipe_takes_secrets_as_mounts_alone_and_keeps_none() -> None:
    steps = re.findall(r"^(?!#)([A-Z]+) (.*)$", DOCKERFILE.replace("\\\n", " "), flags=re.MULTILINE)
    assert {name for name, _ in steps} <= {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD", "LABEL"}
    for name, text in steps:
        mounts = re.findall(r"--mount=type=secret,(\S+)", text)
        assert all(re.fullmatch(r"id=([\w.]+)", mount) and mount[3:] in MOUNTED for mount in mounts), text
        used = text
        for use in USES:
            if use in text:
                assert f"id={use.split('/run/secrets/')[1].split()[0]}" in mounts, text
                used = used.replace(use, "")
        # No copy of a file, no print of the environment.
        assert "/run/secrets" not in used and not re.search(r"set -\w*x|\benv\b|printenv|\bexport -p|\bset;", used), (
            text
        )
        if name == "ARG":
            argument = text.partition("=")[0]
            assert argument in {"BASE", "SOURCE_DATE_EPOCH", "ACCELERATOR", "VERSION", "REVISION"}
    # What apt and uv noted of the addresses, in the stage that is kept.
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert "apt-get -qq clean" in last and "rm -rf /var/lib/apt/lists/* /var/log/apt" in last
    copied = re.findall(r"^COPY --from=(\w+) (\S+)", last, flags=re.MULTILINE)
    assert copied == [("dependencies", "/opt/marco"), ("project", "/project")]


def test_what_lies_beside_the_sources_is_no_part_of_the_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert all(re.fullmatch(r"![\w.-]+", line) or line.startswith("**/") for line in lines[1:])
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for name in (".env", ".netrc", ".git-credentials", "tls.pem", "tls.key", "run.log", "mlflow.db", "__pycache__"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in left_out), name
    let_through = [line[1:] for line in lines if line.startswith("!")]
    tracked = subprocess.run(["git", "ls-files", *let_through], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in tracked.stdout.split():
        parts = path.split("/")
        assert not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in left_out), path


PODMAN = """#!/bin/bash
printf '%s\\n' "$@" >>"$RECORD/arguments"
if [ "$1" = build ]; then
    env >"$RECORD/environment"
    for argument in "$@"; do
        if [[ $argument == id=*,src=* ]]; then cat "${argument#*src=}" >"$RECORD/secret.${argument%%,*}"; fi
    done
    for variable in PIP_INDEX_URL DEBIAN_MIRROR; do echo "STEP 2/9: RUN fetch ${!variable}"; done
    exit $STATUS
fi
"""


@pytest.mark.parametrize("status", [0, 1])
def test_what_the_build_is_handed_in_is_in_no_argument_and_no_line(tmp_path: Path, status: int) -> None:
    """A podman that records what it is given stands in for the real one."""
    tools, record = tmp_path / "tools", tmp_path / "record"
    for folder in (tools, record):
        folder.mkdir()
    for name, text in (("podman", PODMAN), ("runc", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "uv.toml").write_text(f'index-url = "https://user:{canary_search.value(9)}@index.example/simple"\n')
    urls = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "DEBIAN_MIRROR")
    secrets = {name: canary_search.value(number) for number, name in enumerate(urls)}
    others = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "GITHUB_TOKEN")
    environment = {
        "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "RECORD": str(record),
        "STATUS": str(status),
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        **{name: f"https://user:{secret}@index.example/simple" for name, secret in secrets.items()},
        **{name: canary_search.value(100 + number) for number, name in enumerate(others)},
    }
    result = subprocess.run(
        [ROOT / "scripts" / "build_image.sh"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert result.returncode == status, result.stderr
    search = canary_search.Search()
    assert b"RUN fetch https://***@index.example" in result.stderr
    assert search.in_bytes(result.stdout + result.stderr) == []
    assert search.in_bytes((record / "arguments").read_bytes()) == []
    assert b"build\n" in (record / "arguments").read_bytes()
    handed_in = {path.name: path.read_text() for path in record.glob("secret.*")}
    assert {secret for text in handed_in.values() for secret in secrets.values() if secret in text} == {
        *secrets.values()
    }
    assert canary_search.value(9) in handed_in["secret.id=uv.toml"]
    assert not any(environment[name] in text for text in handed_in.values() for name in others)
    # The files that hold them are gone.
    (tmp_path / "uv.toml").unlink()
    shutil.rmtree(record)
    assert search.below(tmp_path)[1] == []


def test_unknown_accelerator_is_refused() -> None:
    environment = {"PATH": "/usr/bin:/bin", "ACCELERATOR": "tpu"}
    result = subprocess.run(
        [ROOT / "scripts" / "build_image.sh"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "error: ACCELERATOR is 'tpu'; give cpu or gpu.\n"


def test_the_image_is_labelled_with_version_and_revision(tmp_path: Path) -> None:
    keep = f'while [ "$1" != --file ]; do shift; done; cp "$2" {tmp_path}/Dockerfile'
    (tmp_path / "podman").write_text(f'#!/bin/sh\nif [ "$1" = build ]; then {keep}; fi\n')
    (tmp_path / "podman").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "BASE": "debian:13-slim"}
    subprocess.run([ROOT / "scripts" / "build_image.sh"], env=environment, capture_output=True, timeout=60, check=True)
    built = (tmp_path / "Dockerfile").read_text()
    assert built.startswith(DOCKERFILE)
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', built.removeprefix(DOCKERFILE)))
    assert labels.pop("version") == importlib.metadata.version("marco-pipeline")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels.pop("revision"))
    assert not labels
