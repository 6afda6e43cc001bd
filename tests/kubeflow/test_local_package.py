"""The compiled package of the preset `local`, run container by container with the image: make test-kubeflow."""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import json
import os
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ENABLED = "MARCO_TEST_KUBEFLOW"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENABLED not in os.environ, reason="needs podman and the image, and minutes: make test-kubeflow"),
]

IMAGE = os.environ.get("MARCO_TEST_IMAGE", "")
SOCKET = os.environ.get("MARCO_TEST_SOCKET", "")
RUN_PACKAGE = Path(__file__).with_name("run_package.py")
STEPS = {
    "Data",
    "MarcoExampleGen",
    "StatisticsGen",
    "CuratedSchema",
    "ExampleValidator",
    "Transform",
    "Materializer",
    "Trainer",
    "Evaluator",
    "ChampionGate",
    "Report",
    "Pusher",
}
LABEL = "marco-test"
TRAINED = 40
SMALL = [
    "data.synthetic.images=240",
    "recipe.evaluate_every=20",
    "recipe.checkpoint_every=20",
    # Too few images and steps for a good model: every model is blessed.
    "thresholds={accuracy: 0.01}",
    "gate.evidence=false",
]


class Ran(NamedTuple):
    """A run of the package: the exit status of `run_package.py`, the steps it started, problems by step, and lines."""

    status: int
    started: set[str]
    problems: dict[str, str]
    lines: list[str]

    def attempts(self) -> list[str]:
        """Returns what `components.steps.attempts` printed, which may follow a line that lacks its end."""
        return [match[0] for line in self.lines if (match := re.search("attempt [0-9]+ of .*", line))]


def podman(*arguments: str) -> list[str]:
    """Returns the command that starts a container of the image as a pod of the restricted standard is started."""
    hardened = ["--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    return ["podman", "run", "--rm", "--network", "host", *hardened, *arguments]


def say(text: str) -> None:
    print(f"kubeflow: {text}", flush=True)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder that containers write to: their user is not the owner, but of group 0 as in any Kubernetes volume.

    Containers that an interrupted test left are taken away.
    """
    folder = tmp_path / "root"
    folder.mkdir()
    folder.chmod(0o2775)
    yield folder
    left = ["podman", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={folder}"]
    for container in subprocess.run(left, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run(["podman", "rm", "--force", container], check=False)


def compiled(root: Path, *further: str) -> Path:
    """Compiles the package as a user does, for artifacts below `root`, with `further` settings."""
    package = root.parent / "pipeline.yaml"
    changes = [part for change in (*SMALL, *further) for part in ("--set", change)]
    marco = Path(sys.executable).with_name("marco")
    subprocess.run(
        [marco, "compile", "--preset", "local", "--root", root, "--image", IMAGE, "--output", package, *changes],
        check=True,
        timeout=300,
    )
    return package


def kill_in_training(root: Path, ended: threading.Event) -> int:
    """Kills the process that trains with SIGKILL, as the kernel does for lack of memory, after its first checkpoint.

    Returns how many processes it killed, 0 if the run has `ended` before.
    """
    while not list(root.glob("checkpoints/*/step-*.npz")):
        if ended.wait(0.05):
            return 0
    killed = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # Ended since.
            arguments = file.read_bytes().split(b"\0")
            if arguments[1:3] == [b"-m", b"components.steps.entrypoint"] and os.fsencode(root) in b" ".join(arguments):
                os.kill(int(file.parent.name), signal.SIGKILL)
                killed += 1
    return killed


def run(package: Path, root: Path, **parameters: str) -> Ran:
    """Runs the package, prints which step begins, and returns the outcome."""
    # kfp.local removes five characters from a component's name, which are "comp-" in KFP's own packages.
    step_of = {step[len("comp-") :]: step for step in steps(package)}
    mounts = [
        f"{root}:{root}",
        f"{package}:{package}:ro",
        f"{RUN_PACKAGE}:/run_package.py:ro",
        f"{SOCKET}:/podman.sock",
    ]
    command = [
        *podman("--label", f"{LABEL}={root}", "--env", "DOCKER_HOST=unix:///podman.sock"),
        *(part for mount in mounts for part in ("--volume", mount)),
        *(IMAGE, "python", "/run_package.py", str(package), str(root)),
        *(f"{key}={value}" for key, value in parameters.items()),
    ]
    lines: list[str] = []
    started: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(re.sub(r"\x1b\[\d*m", "", line.rstrip()))
            if executing := re.search("Executing task '(.*)'", lines[-1]):
                started.add(step_of[executing[1]])
                say(step_of[executing[1]])
    log = root.parent / "run.log"
    log.write_text("\n".join(lines))
    report = root / "problems.json"
    assert report.is_file(), f"the runner itself failed, {log} ends with: " + "\n".join(lines[-40:])
    found = json.loads(report.read_text())
    if found:
        print("\n".join(lines[-200:]))
    return Ran(process.returncode, started, found, lines)


def test_every_step_runs_and_the_pushed_model_scores_pictures(root: Path, real_images: dict[str, Path]) -> None:
    package = compiled(root)
    ended = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        killer = pool.submit(kill_in_training, root, ended)
        try:
            ran = run(package, root, steps=str(TRAINED), run_label="by hand")
        finally:
            ended.set()
    assert (ran.problems, ran.status) == ({}, 0)
    assert killer.result() == 1
    # The step was repeated in its own container, from its checkpoint.
    assert ran.attempts() == ["attempt 1 of 3 ended with exit status 137; again in 30 s"]
    again = "\n".join(ran.lines).partition("again in 30 s")[2]
    assert min(int(step) for step in re.findall(rf"Training: ([0-9]+)/{TRAINED} steps", again)) > TRAINED // 2
    assert len(list(root.glob("*-*/**/executor-logs-0"))) == len(STEPS)
    assert ran.started == steps(package)
    assert steps(package) == STEPS
    assert blessings(root) == ["BLESSED", "BLESSED"]  # The Evaluator's, and the gate's without a champion.
    (model,) = (root / "models").iterdir()
    assert trained_runs(root) == [("by hand", TRAINED)]
    scores = predictions(model, root, real_images)
    assert {Path(row["path"]).name for row in scores} == set(real_images)
    for row in scores:
        values = [float(row[name]) for name in ("clear", "crystals", "other", "precipitate")]
        assert all(0 <= value <= 1 for value in values)
        assert sum(values) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("damaged", "step"), [(False, "Data"), (True, "MarcoExampleGen")])
def test_failing_step_is_reported(root: Path, damaged: bool, step: str) -> None:
    shards = root / "shards"
    shards.mkdir()
    if damaged:
        # A record of four bytes whose checksums are wrong.
        (shards / "train-00000-of-00001").write_bytes(struct.pack("<QI4sI", 4, 1, b"junk", 2))
    ran = run(compiled(root), root, data=str(shards))
    assert ran.status == 1
    # Wrong input would be wrong again: the step is not repeated.
    assert ran.attempts() == ["attempt 1 of 3 ended with exit status 2; the step fails"]
    assert ran.started & set(ran.problems) == {step}
    assert set(ran.problems) - ran.started >= {"StatisticsGen", "Transform", "Trainer", "Evaluator", "Pusher"}


def test_missing_gpus_stop_the_step_before_an_image_is_read(root: Path) -> None:
    ran = run(compiled(root, "cluster.steps={Trainer: {accelerators: 1}}"), root, steps=str(TRAINED))
    assert ran.status == 1
    assert ran.attempts() == ["attempt 1 of 3 ended with exit status 2; the step fails"]
    assert ran.started & set(ran.problems) == {"Trainer"}
    assert any("TensorFlow sees 0 of the 1 GPUs that were asked for" in line for line in ran.lines)
    assert [path.name for path in root.glob("checkpoints/*/*")] == ["job.json"]


def test_the_image_holds_the_checkout() -> None:
    """A cache of an earlier build may not lend the image its code."""
    listing = """
import hashlib, importlib.util, pathlib, sys
for name in sys.argv[1:]:
    folder = pathlib.Path(importlib.util.find_spec(name).origin).parent
    for path in sorted(folder.rglob("*.py")):
        print(path.relative_to(folder.parent), hashlib.sha256(path.read_bytes()).hexdigest())
"""
    arguments = ["-c", listing, *sorted(path.parent.name for path in Path().glob("*/py.typed"))]
    inside = subprocess.check_output([*podman(), IMAGE, "python", *arguments], text=True)
    outside = subprocess.check_output([sys.executable, *arguments], text=True)
    assert inside.splitlines() == outside.splitlines() != []
    timed = subprocess.check_output([*podman(), IMAGE, "find", "/opt/marco", "-name", "uv_cache.json"], text=True)
    assert not timed, "two builds would differ"


# Google's device plugin mounts the driver at the first place; NVIDIA's toolkit (EKS, GPU Operator) at the second or,
# by CDI, where the node has it, which is the third on those of Red Hat and Amazon. There it also makes the loader's
# cache again (NVIDIA/nvidia-container-toolkit v1.20.0, internal/ldconfig/ldconfig.go).
@pytest.mark.parametrize("place", ["/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"])
def test_the_images_tensorflow_loads_the_driver_where_runtimes_mount_it(place: str, tmp_path: Path) -> None:
    """Another library stands for the driver and, in the image without CUDA, for its runtime."""
    volumes, original = [], "libBrokenLocale.so.1"
    content = Path("/usr/lib/x86_64-linux-gnu", original).read_bytes()
    for name in ("libcuda.so.1", "libcudart.so.12"):
        # ldconfig and the loader go by the name inside the file.
        own = name.ljust(len(original), "\0")
        (tmp_path / name).write_bytes(content.replace(original.encode(), own.encode()))
        volumes += ["--volume", f"{tmp_path / name}:{place}/{name}:ro"]
    if place == "/usr/lib64":
        hook = f"echo {place} >/etc/ld.so.conf.d/00-nvcr.conf && /sbin/ldconfig -C /out/ld.so.cache"
        as_root = ["podman", "run", "--rm", "--network", "host", "--user", "0", "--volume", f"{tmp_path}:/out"]
        subprocess.run([*as_root, *volumes, IMAGE, "sh", "-c", hook], timeout=600, check=True)
        volumes += ["--volume", f"{tmp_path}/ld.so.cache:/etc/ld.so.cache:ro"]
    listing = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"
    command = [*podman("--env", "LD_DEBUG=libs", *volumes), IMAGE, "python", "-c", listing]
    done = subprocess.run(command, capture_output=True, timeout=600, check=True)
    # The loader calls /usr/lib /lib, which is a link to it.
    loaded = rf"calling init: (/usr)?{place.removeprefix('/usr')}/libcuda\.so\.1"
    assert re.search(loaded.encode(), done.stderr)


def steps(package: Path) -> set[str]:
    return set(next(iter(yaml.safe_load_all(package.read_text())))["root"]["dag"]["tasks"])


def blessings(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*BLESSED")]


def trained_runs(root: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(root / "mlflow.db") as store:
        return store.execute(
            "select value, max(step) from tags join (select run_uuid, step from metrics) using (run_uuid)"
            " where key = 'run_label' group by value"
        ).fetchall()


def predictions(model: Path, root: Path, images: dict[str, Path]) -> list[dict[str, str]]:
    folder = next(iter(images.values())).parent
    command = podman("--volume", f"{root}:{root}", "--volume", f"{folder}:/images:ro", IMAGE, "marco", "predict")
    scores = root / "scores.csv"
    subprocess.run([*command, "--model", str(model), "--output", str(scores), "/images"], check=True, timeout=300)
    with scores.open() as file:
        return list(csv.DictReader(file))
