"""The package of two presets for Vertex AI, kept to show what a change of the graph does to it.

`python tests/pipelines/vertex_golden.py` writes them anew after a change that is meant.
"""

import json
import pathlib
import sys

PACKAGES = pathlib.Path(__file__).parent / "packages/vertex"
PRESETS = ("local", "paper")
ROOT, DATA, IMAGE = "gs://bucket/runs", "gs://bucket/marco", "registry.example/marco@sha256:" + "0123456789abcdef" * 4
TRACKING = "tracking.uri=http://mlflow:5000"
# One of the two deploys what it publishes.
CHANGES = {
    "local": [],
    "paper": [
        "vertex={project: crystals, location: europe-west4, accelerator: NVIDIA_L4}",
        "endpoint={name: marco, machine_type: n1-standard-8}",
    ],
}


def compile_preset(preset, output, *changes):
    """Compiles a preset to `output` and returns the package."""
    from pipelines import compilation, configuration

    changes = [TRACKING, f"cluster.image={IMAGE}", *CHANGES[preset], *changes]
    compilation.compile_for_vertex(configuration.load(preset, changes, DATA), ROOT, output)
    return json.loads(output.read_text())


def alike(package):
    """Returns the package without what differs between the runtimes; see golden.py."""
    package = json.loads(json.dumps(package))
    del package["sdkVersion"]
    options = package["root"]["dag"]["tasks"]["StatisticsGen"]["inputs"]["parameters"]["stats_options_json"]
    told = json.loads(options["runtimeValue"]["constant"])
    options["runtimeValue"]["constant"] = {name: value for name, value in told.items() if value is not None}
    return package


if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGES.parents[3]))
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for name in PRESETS:
        compile_preset(name, PACKAGES / f"{name}.json")
        print(PACKAGES / f"{name}.json")
