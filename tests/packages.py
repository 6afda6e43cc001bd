"""Packages that `marco compile` writes, each compiled once per session, and messages for their steps."""

import json

import yaml

from tests import processes

ROOT, DATA, IMAGE = "gs://bucket/runs", "gs://bucket/marco", "registry.example/marco@sha256:" + "0123456789abcdef" * 4
TRACKING = "tracking.uri=http://mlflow:5000"
KUBEFLOW = sorted(path.stem for path in (processes.ROOT / "pipelines/presets").glob("*.yaml"))
VERTEX = ["local", "paper"]
NAMES = [*(f"{preset}.yaml" for preset in KUBEFLOW), *(f"{preset}.json" for preset in VERTEX)]
# One of the two packages for Vertex AI deploys what it publishes.
CHANGES = {
    "paper.json": (
        "vertex={project: crystals, location: europe-west4, accelerator: NVIDIA_L4}",
        "endpoint={name: marco, machine_type: n1-standard-8}",
    )
}


class Packages:
    """Compiles packages into a folder, which several pytest workers may share; `paper.json` is one for Vertex AI."""

    def __init__(self, folder):
        self._folder = folder

    def path(self, name):
        """Returns the file of a package of `NAMES`; compiles it in another process on the first call."""
        path = self._folder / name
        if not path.exists():
            aside = self._folder / f"{id(self)}.{name}"
            changes, modules = CHANGES.get(name, ()), processes.PIPELINE
            with processes.start(write_package, path.stem, aside, *changes, modules=modules) as child:
                child.wait(180)
            assert child.returncode == 0, child.stderr
            aside.replace(path)
        return path

    def documents(self, name):
        """Returns the documents of a package: the pipeline and, for Kubeflow, what only Kubernetes knows."""
        return read_package(self.path(name))

    def pipeline(self, name):
        """Returns the specification of a package's pipeline."""
        return self.documents(name)[0]


def write_package(preset, path, *changes):
    """Compiles a preset in this process; the ending of the path says for which service. Returns the documents."""
    from pipelines import compilation, configuration

    loaded = configuration.load(preset, [TRACKING, f"cluster.image={IMAGE}", *changes], DATA)
    compile_for = compilation.compile_for_vertex if path.suffix == ".json" else compilation.compile_for_kubeflow
    compile_for(loaded, ROOT, path)
    return read_package(path)


def read_package(path):
    """Returns the documents of a compiled package."""
    text = path.read_text()
    return [json.loads(text)] if path.suffix == ".json" else list(yaml.load_all(text, yaml.CSafeLoader))


def tasks(package):
    """Returns the steps of a pipeline by name."""
    return package["root"]["dag"]["tasks"]


def containers(package):
    """Returns the container of each step by name."""
    return {name: package["deploymentSpec"]["executors"][f"{name}_executor"]["container"] for name in tasks(package)}


def constants(package, step):
    """Returns the parameters of a step whose values are part of the package; JSON is parsed."""
    parameters = tasks(package)[step].get("inputs", {}).get("parameters", {})
    values = {name: value["runtimeValue"]["constant"] for name, value in parameters.items() if "runtimeValue" in value}
    return {name: _parsed(value) for name, value in values.items()}


def _parsed(value):
    return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value


def artifact_lists(definitions, root):
    """Returns ExecutorInput's map of artifacts for `definitions`, KFP's ComponentInputsSpec or ComponentOutputsSpec."""
    return {
        name: {"artifacts": [{"name": name, "uri": f"{root}/{name}", "type": definition["artifactType"]}]}
        for name, definition in definitions.get("artifacts", {}).items()
    }
