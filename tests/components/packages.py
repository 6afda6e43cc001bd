"""The kept packages of tests/pipelines/packages, and messages for their steps as a launcher writes them."""

import json
import pathlib

import yaml

PACKAGES = pathlib.Path(__file__).parents[1] / "pipelines/packages"
KEPT = sorted([*PACKAGES.glob("*.yaml"), *PACKAGES.glob("vertex/*.json")])


def read_package(path):
    """Returns the first document of a kept package, the specification of its pipeline."""
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else next(yaml.load_all(text, yaml.CSafeLoader))


def artifact_lists(definitions, root):
    """Returns ExecutorInput's map of artifacts for `definitions`, KFP's ComponentInputsSpec or ComponentOutputsSpec."""
    return {
        name: {"artifacts": [{"name": name, "uri": f"{root}/{name}", "type": definition["artifactType"]}]}
        for name, definition in definitions.get("artifacts", {}).items()
    }
