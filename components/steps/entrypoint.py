"""What a container of a compiled TFX step runs on Kubeflow Pipelines and Vertex AI, around TFX's own entrypoint.

The launcher of Kubeflow Pipelines 2 differs from that of Vertex AI, for which TFX compiles, in four ways. It hands over
input artifacts without their types, which stand in the specification that TFX passes beside them. It names artifacts on
`gs://`, `s3://` and `minio://`, but has fetched inputs, and fetches outputs, below `/gcs`, `/s3` and `/minio`. It adds
an output of its own, `executor-logs`, a file that it writes while the step runs. And it waits for processes that TFX's
libraries may crash while they end.

On Vertex AI (`--keep_uris`) artifacts are read and written on `gs://` itself. Its mount of buckets at `/gcs` cannot be
relied on: Cloud Storage FUSE refuses to rename folders by default, which TFX does.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
from typing import Any

from marco_model import recipe
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


def localize(executor_input: dict[str, Any], inputs_spec: dict[str, Any], keep_uris: bool = False) -> dict[str, str]:
    """Fills in types and local paths of all artifacts, in place; returns the URI of each output by its local path.

    Outputs that are not the component's own are taken out. `executor_input`, `inputs_spec`: the messages ExecutorInput
    and ComponentInputsSpec of KFP's pipeline_spec, as JSON. `keep_uris`: artifacts are used where they lie.
    """
    specs = inputs_spec.get("artifacts", {})
    local = str if keep_uris else staged
    for name, artifact in _artifacts(executor_input.get("inputs", {})):
        if name in specs and not _is_own(artifact):
            artifact["type"] = specs[name]["artifactType"]
        artifact["uri"] = local(artifact["uri"])
    outputs = executor_input.get("outputs", {})
    named = outputs.get("artifacts", {})
    outputs["artifacts"] = {
        name: group for name, group in named.items() if all(map(_is_own, group.get("artifacts", [])))
    }
    remote = {}
    for _, artifact in _artifacts(outputs):
        uri = artifact["uri"]
        artifact["uri"] = local(uri)
        remote[artifact["uri"]] = uri
    return remote


def _is_own(artifact: dict[str, Any]) -> bool:
    """Returns whether an artifact has a type of TFX or of this project, not one of KFP (such as `system.Artifact`)."""
    kind = artifact.get("type") or {}
    return bool(kind) and not kind.get("schemaTitle", "").startswith("system.")


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
    parser.add_argument("--keep_uris", action="store_true")
    options, beam_arguments = parser.parse_known_args(arguments)
    executor_input = json.loads(options.json_serialized_invocation_args)
    specification = json.loads(options.json_serialized_inputs_spec_args)
    remote = localize(executor_input, specification, options.keep_uris)
    if options.keep_uris:
        options.json_serialized_invocation_args = json.dumps(executor_input)
        kubeflow_v2_run_executor.main((options, beam_arguments))
        return
    output_file = pathlib.Path(staged(executor_input["outputs"]["outputFile"]))
    executor_input["outputs"]["outputFile"] = str(output_file)
    for path in remote:
        # An attempt that failed in this container may have left a part.
        shutil.rmtree(path, ignore_errors=True)
        pathlib.Path(path).mkdir(parents=True)
    output_file.unlink(missing_ok=True)
    options.json_serialized_invocation_args = json.dumps(executor_input)
    kubeflow_v2_run_executor.main((options, beam_arguments))
    executor_output = json.loads(output_file.read_text())
    restore(executor_output, remote)
    output_file.write_text(json.dumps(executor_output))


def run() -> None:
    """Runs `main` and exits at once: some libraries of TFX crash in the destructors of an orderly exit.

    So the exit status of an expected error stays what `exit_status` says, by which `attempts` decides.
    """
    status: str | int | None = 0
    recipe.set_tensorflow_defaults()
    try:
        with exit_status():
            main(sys.argv[1:])
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    run()
