"""What a container of a compiled TFX step runs on Kubeflow Pipelines and Vertex AI, around TFX's own entrypoint.

The launcher of Kubeflow Pipelines 2 differs from that of Vertex AI, for which TFX compiles, in three ways (facts:
docs/kubeflow.md). It hands over input artifacts without their types, which stand in the specification that TFX passes
beside them. It names artifacts on `gs://`, `s3://` and `minio://`, but has fetched inputs, and fetches outputs, below
`/gcs`, `/s3` and `/minio`. And it waits for processes that TFX's libraries may crash while they end.

Vertex AI types its artifacts, and mounts buckets at `/gcs` (Cloud Storage FUSE), so the same paths lead to them there.
"""

import argparse
import json
import os
import pathlib
import sys
from typing import Any

from marco_model.errors import exit_status

_STAGED = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}


def staged(uri: str) -> str:
    """Returns the local path of what the launcher keeps at `uri`; any other path or URI unchanged."""
    for scheme, folder in _STAGED.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    return uri


def unstaged(path: str) -> str:
    """Returns the URI that the launcher keeps a staged `path` at; any other path or URI unchanged."""
    for scheme, folder in _STAGED.items():
        if path.startswith(folder):
            return scheme + path.removeprefix(folder)
    return path


def localize(executor_input: dict[str, Any], inputs_spec: dict[str, Any]) -> dict[str, str]:
    """Fills in types and local paths of all artifacts, in place; returns the URI of each output by its local path.

    `executor_input`, `inputs_spec`: the messages ExecutorInput and ComponentInputsSpec of KFP's pipeline_spec, as JSON.
    """
    specs = inputs_spec.get("artifacts", {})
    for name, artifact in _artifacts(executor_input.get("inputs", {})):
        known = artifact.get("type") or {}
        # "system.Artifact" is what KFP calls any artifact that it has no class for.
        if name in specs and (not known or known.get("schemaTitle", "").startswith("system.")):
            artifact["type"] = specs[name]["artifactType"]
        artifact["uri"] = staged(artifact["uri"])
    remote = {}
    for _, artifact in _artifacts(executor_input.get("outputs", {})):
        uri = artifact["uri"]
        artifact["uri"] = staged(uri)
        remote[artifact["uri"]] = uri
    return remote


def restore(executor_output: dict[str, Any], remote: dict[str, str]) -> None:
    """Puts the URIs of outputs back, in place: the launcher uploads from where they lead and records them."""
    for _, artifact in _artifacts(executor_output):
        artifact["uri"] = remote.get(artifact["uri"], artifact["uri"])


def _artifacts(message: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    named = message.get("artifacts", {})
    return [(name, artifact) for name, group in named.items() for artifact in group.get("artifacts", [])]


def main(arguments: list[str]) -> None:
    """Runs the executor that `arguments`, those of TFX's `kubeflow_v2_run_executor`, name."""
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", default="{}")
    options, beam_arguments = parser.parse_known_args(arguments)
    executor_input = json.loads(options.json_serialized_invocation_args)
    remote = localize(executor_input, json.loads(options.json_serialized_inputs_spec_args))
    executor_input["outputs"]["outputFile"] = staged(executor_input["outputs"]["outputFile"])
    for path in remote:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    options.json_serialized_invocation_args = json.dumps(executor_input)
    kubeflow_v2_run_executor.main((options, beam_arguments))
    output_file = pathlib.Path(executor_input["outputs"]["outputFile"])
    executor_output = json.loads(output_file.read_text())
    restore(executor_output, remote)
    output_file.write_text(json.dumps(executor_output))


def run() -> None:
    """Runs `main` and exits at once: some libraries of TFX crash in the destructors of an orderly exit."""
    with exit_status():
        main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    run()
