"""Fixtures that all tests share. Nothing heavy is imported here, so that collecting stays quick."""

from __future__ import annotations

import collections
import ctypes
import gc
import os
from pathlib import Path

import pytest

# Read by TensorFlow, Keras and Matplotlib when they are first imported; processes that tests start inherit them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As `marco` sets it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Several files are tested at a time; threads that wait for work keep a core busy meanwhile.
for library in ("TF_NUM_INTRAOP", "OPENBLAS_NUM", "OMP_NUM"):
    os.environ.setdefault(f"{library}_THREADS", "1")
# With one, a coordinator waits for a worker that waits for it.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "Agg")
# It would be the store of the runs that tests start; without it that is in their working directory.
os.environ.pop("MLFLOW_TRACKING_URI", None)

IMAGES = Path(__file__).parent / "data" / "images"

# The libraries make millions of objects that live on; Python's own thresholds scan them hundreds of times.
gc.set_threshold(100_000, 20, 10)


# The files whose tests take longest, in this order; a new one of over 20 s belongs among them.
LONGEST = (
    "pipelines/commands/test_canary.py",
    "pipelines/test_cluster_graph.py",
    "pipelines/test_bucket_run.py",
    "pipelines/test_label_schemes.py",
    "pipelines/test_relabelling.py",
    "test_quickstart.py",
    "pipelines/test_local_runner.py",
    "marco_model/engines/test_engines.py",
    "components/trainer/jobset/test_training.py",
    "marco_model/test_weights.py",
    "marco_scoring/plate_report/test_browser.py",
    "marco_model/test_network.py",
    "marco_data/relabelling/test_rater_page.py",
    "k8s/test_mlflow_server.py",
    "components/vertex/test_rollout.py",
    "marco_model/test_onnx_export.py",
    "marco_model/test_training.py",
    "components/trainer/jobset/test_launch.py",
    "components/monitoring/test_watch.py",
    "marco_scoring/serving/test_server.py",
    "marco_model/test_attribution.py",
    "marco_model/test_classifier.py",
    "marco_model/test_inception_v3.py",
    "components/monitoring/test_drift.py",
    "components/test_mlflow_registry.py",
    "marco_scoring/plate_report/test_marks.py",
    "test_setup_make_env.py",
    "benchmarks/test_drops.py",
    "benchmarks/test_train_step.py",
    "components/trainer/test_execution.py",
    "components/steps/test_evaluator.py",
    "components/example_gen/test_ingest.py",
    "components/test_search.py",
)


def pytest_collection_modifyitems(items):
    """The longest files come first, then other slow ones, so that no process is left alone with one of them at the end.

    pytest-xdist hands out files in this order, one to each process that has finished.
    """
    tests, slow = collections.Counter(), collections.Counter()
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
        tests[item.path] += 1
        slow[item.path] += item.get_closest_marker("slow") is not None
    longest = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in longest), "LONGEST names a file that is gone"
    items.sort(key=lambda item: (longest.get(item.path, len(longest)), -slow[item.path] / tests[item.path]))


@pytest.fixture(scope="session")
def real_images() -> dict[str, Path]:
    """The six real MARCO images of tests/data/images by file name, such as `crystals_10.jpeg`; read-only."""
    return {path.name: path for path in sorted(IMAGES.glob("*.jpeg"))}


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium. Playwright runs an event loop while it is open, which no other test may meet."""
    import shutil

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=options)
        yield running
        running.close()


@pytest.fixture
def gcs(monkeypatch):
    """An emulator of Google Cloud Storage that starts empty and can inject faults (tests/fakes/gcs_emulator.py)."""
    from tests.fakes import gcs_emulator

    with gcs_emulator.running(monkeypatch) as server:
        yield server


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A folder that all processes of this run of pytest share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def made_once(run_folder):
    """Returns `made_once(name, make) -> Path`: `make(path)` is called once for all processes of this run of pytest."""
    import fcntl

    def made(name, make):
        path = run_folder / name
        with (run_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make(path)
        return path

    return made


@pytest.fixture(scope="session")
def compiled(run_folder):
    """The compiled packages of all presets (tests/packages.py), made when a test first asks for one."""
    from tests import packages

    folder = run_folder / "packages"
    folder.mkdir(exist_ok=True)
    return packages.Packages(folder)


@pytest.fixture(scope="module")
def short_network():
    """Networks that a file's tests build in this process are cut short (tests/short_network.py)."""
    from tests import short_network

    with short_network.cut():
        yield


@pytest.fixture
def short_applications():
    """Keras's applications that a test builds in this process are cut short (tests/short_network.py)."""
    from tests import short_network

    with short_network.cut_applications():
        yield


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """Returns freed memory to the system after each file: glibc keeps gigabytes of it after networks of many sizes.

    What lives when a file starts, imported modules above all, is left out of later searches for garbage.
    """
    before = _resident()
    gc.freeze()
    yield
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim and _resident() - before > 2**28:
        trim(0)


def _resident() -> int:
    """Returns the bytes of memory that this process holds; 0 if there is no /proc."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
