"""The project's artifact types, as TFX's container entrypoint reads them from a compiled package."""

import importlib
import inspect
import subprocess
import sys

import pytest
import yaml

from tests import packages


def own_types():
    """Returns the classes that `components.artifacts` defines."""
    artifacts = importlib.import_module("components.artifacts")
    classes = [value for _, value in inspect.getmembers(artifacts, inspect.isclass)]
    return [value for value in classes if value.__module__ == artifacts.__name__]


@pytest.mark.slow
def test_every_type_is_imported_by_its_name():
    from tfx.utils import import_utils

    names = [artifact_type.TYPE_NAME for artifact_type in own_types()]
    assert len(names) == 6
    for artifact_type in own_types():
        assert import_utils.import_class_by_path(artifact_type.TYPE_NAME) is artifact_type


@pytest.mark.slow
@pytest.mark.parametrize("name", packages.NAMES)
def test_tfx_parses_the_inputs_and_outputs_of_every_step(compiled, name):
    """The parser is the one that `kubeflow_v2_run_executor` calls before it starts a step's executor."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils

    steps = compiled.pipeline(name)["components"]
    assert {"MarcoExampleGen", "Trainer", "Evaluator", "ChampionGate", "Pusher", "Report"} <= set(steps)
    for step_name, step in steps.items():
        for kind in ("inputs", "outputs"):
            definitions = step.get(f"{kind.removesuffix('s')}Definitions", {})
            message = {kind: {"artifacts": packages.artifact_lists(definitions, f"gs://bucket/{step_name}")}}
            parsed = json_format.ParseDict(message, pipeline_spec_pb2.ExecutorInput())
            artifacts = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(getattr(parsed, kind).artifacts)
            titles = {
                key: yaml.safe_load(definition["artifactType"]["instanceSchema"])["title"].removeprefix("tfx.")
                for key, definition in definitions.get("artifacts", {}).items()
            }
            assert {key: artifact.type_name for key, (artifact,) in artifacts.items()} == titles, (step_name, kind)


def test_a_name_without_a_type_is_refused_and_modules_do_not_import_tfx():
    code = (
        "import sys, components\n"
        "from components import settings\n"
        "assert 'tfx' not in sys.modules\n"
        "assert not hasattr(components, 'nothing') and 'tfx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import components

    with pytest.raises(AttributeError, match="module 'components' has no attribute '_ARTIFACTS'"):
        components._ARTIFACTS  # noqa: B018
