"""The compiled package of each preset, kept to show what a change of the graph does to it.

`python tests/pipelines/golden.py` writes them anew after a change that is meant.
"""

import json
import pathlib
import sys

import yaml

PACKAGES = pathlib.Path(__file__).parent / "packages"
ROOT, DATA, IMAGE = "gs://bucket/runs", "gs://bucket/marco", "registry.example/marco@sha256:" + "0123456789abcdef" * 4
TRACKING = "tracking.uri=http://mlflow:5000"


def compile_preset(preset, output, *changes):
    """Compiles a preset to `output` and returns the package's two documents."""
    from pipelines import compilation, configuration

    loaded = configuration.load(preset, [TRACKING, f"cluster.image={IMAGE}", *changes], DATA)
    compilation.compile_for_kubeflow(loaded, ROOT, output)
    return list(yaml.safe_load_all(output.read_text()))


def alike(documents):
    """Returns the documents without what differs between the runtimes: TFX's version, options that TFDV leaves null."""
    package, platform = json.loads(json.dumps(documents))
    del package["sdkVersion"]
    options = package["root"]["dag"]["tasks"]["StatisticsGen"]["inputs"]["parameters"]["stats_options_json"]
    told = json.loads(options["runtimeValue"]["constant"])
    options["runtimeValue"]["constant"] = {name: value for name, value in told.items() if value is not None}
    return [package, platform]


if __name__ == "__main__":
    sys.path.insert(0, str(PACKAGES.parents[2]))
    from pipelines.configuration import preset_names

    PACKAGES.mkdir(exist_ok=True)
    for name in preset_names():
        compile_preset(name, PACKAGES / f"{name}.yaml")
        print(PACKAGES / f"{name}.yaml")
