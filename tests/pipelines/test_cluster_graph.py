"""The whole compiled graph, step by step with the messages and files of the services (tests/fakes/step_services.py)."""

import graphlib

import pytest

from tests import packages, processes, short_network
from tests.fakes import step_services

pytestmark = pytest.mark.slow

TINY = (
    "data.synthetic={images: 64, shorter_side: 160}",
    "recipe.steps=30",
    "recipe.batch_size=8",
    "recipe.evaluate_every=30",
    "transform.shorter_side=152",
    "network.input_size=151",
    "network.depth_multiplier=0.1",
    "network.auxiliary=false",
    "thresholds={accuracy: 0.01}",
    "export.tflite=false",
)


def compile_tiny(folder, root, *changes):
    """Returns the package of the preset `local` cut short, with all that lasts below `root`."""
    from pipelines import compilation, configuration

    loaded = configuration.load("local", [*TINY, *changes])
    compilation.compile_for_kubeflow(loaded, root, folder / "local.yaml")
    return packages.read_package(folder / "local.yaml")[0]


def run_all(service):
    """Runs every step, producers first; returns their names."""
    tasks = packages.tasks(service.package)
    order = {step: task.get("dependentTasks", []) for step, task in tasks.items()}
    steps = list(graphlib.TopologicalSorter(order).static_order())
    for step in steps:
        print(f"step: {step}", flush=True)
        service.run(step)
    return steps


def run_on_kubeflow(folder):
    from components.steps import entrypoint

    package = compile_tiny(folder, str(folder / "shared"), f"cluster.volumes=[{{claim: shared, path: {folder}}}]")
    service = step_services.Kubeflow(package, folder)
    entrypoint._STAGED = service.staging()
    run_all(service)
    for step, component in package["components"].items():
        for name in component.get("outputDefinitions", {}).get("artifacts", {}):
            uri, _ = service.artifacts[step, name]
            # TFX's Transform declares a cache that it does not write.
            written = any(path.is_file() for path in service.stored(uri).rglob("*"))
            assert written or name == "updated_analyzer_cache", f"{step} left {name} empty"
        uri, _ = service.artifacts[step, step_services.LOGS]
        assert service.stored(uri).is_file(), "the launcher's log was changed"


def test_every_step_of_the_local_graph_runs_as_kubeflow_runs_it(tmp_path):
    options = {"modules": processes.PIPELINE, "before": short_network.use}
    with processes.start(run_on_kubeflow, tmp_path, **options) as process:
        process.wait(300)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-8000:]
    assert (tmp_path / "shared/models/1").is_dir()
