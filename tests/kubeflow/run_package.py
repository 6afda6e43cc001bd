"""Runs a compiled package container by container with `kfp.local`, and checks the outputs of each step.

Runs inside the project's image, which has the KFP that this needs:

    python run_package.py PACKAGE.yaml ROOT [PARAMETER=VALUE …]

Messages and files are as Kubeflow's launcher makes them where `kfp.local` differs (`as_launcher`), and the containers
get the package's number of retries.

DOCKER_HOST names the socket of podman or Docker. ROOT is mounted into every container at the same path. The file
`problems.json` in ROOT has the problem of each step that has one; the exit status is 1 if there is any. It is a file
because lines of containers that end without a newline run into whatever is printed next.
"""

from __future__ import annotations

import functools
import graphlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import docker
import yaml
from google.protobuf import json_format
from kfp import local
from kfp.local import docker_task_handler, executor_input_utils, pipeline_orchestrator
from kfp.pipeline_spec import pipeline_spec_pb2

# What a pod of the restricted Pod Security Standard gets, with a root that can't be written to.
RESTRICTED = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "read_only": True,
    "tmpfs": {"/tmp": "mode=1777"},
    "network_mode": "host",
}

# Outputs that TFX's own components declare and that no step writes.
LEFT_EMPTY = {"updated_analyzer_cache"}


def problems(package: dict[str, Any], root: Path) -> dict[str, str]:
    """Returns what is missing for each step that did not write all its outputs below `root`, producers first."""
    found = {}
    tasks = package["root"]["dag"]["tasks"]
    producers = {step: task.get("dependentTasks", []) for step, task in tasks.items()}
    for step in graphlib.TopologicalSorter(producers).static_order():
        component = tasks[step]["componentRef"]["name"]
        # kfp.local removes "comp-" from a component's name, or as many other characters.
        folders = sorted(root.glob(f"*-*/{component[len('comp-') :]}"))
        if problem := _problem(package["components"][component].get("outputDefinitions", {}), folders):
            found[step] = problem
    return found


def _problem(outputs: dict[str, Any], folders: list[Path]) -> str:
    if not folders:
        return "it left nothing"
    (folder,) = folders
    for name in outputs.get("parameters", {}):
        if not (folder / name).is_file():
            return f"output parameter {name} was not written"
    if not outputs.get("artifacts"):
        return ""
    if not (folder / "executor_output.json").is_file():
        return "it wrote no executor_output.json"
    written = json.loads((folder / "executor_output.json").read_text()).get("artifacts", {})
    for name in outputs["artifacts"]:
        uris = [Path(artifact["uri"]) for artifact in written.get(name, {}).get("artifacts", [])]
        if not uris:
            return f"output {name} is not in executor_output.json"
        for uri in uris:
            if name not in LEFT_EMPTY and not any(path.is_file() for path in uri.rglob("*")):
                return f"output {name} is empty: {uri}"
    return ""


LOGS = "executor-logs"
construct = executor_input_utils.construct_executor_input


def as_launcher(*arguments: Any, **options: Any) -> pipeline_spec_pb2.ExecutorInput:
    """Returns the message of a step as driver and launcher of Kubeflow Pipelines write it, and makes their file.

    kubeflow/pipelines 2.17.0: inputs have no type, and every step has one output more, `executor-logs`, a file that is
    open before the step starts (backend/src/v2/driver/driver.go, provisionOutputs; component/launcher_v2.go,
    getLogWriter; with PUBLISH_LOGS, which the default manifests set).
    """
    message = construct(*arguments, **options)
    for group in message.inputs.artifacts.values():
        for artifact in group.artifacts:
            artifact.ClearField("type")
    logs = Path(message.outputs.output_file).parent / f"{LOGS}-0"
    logs.parent.mkdir(parents=True, exist_ok=True)
    logs.touch()
    artifact = message.outputs.artifacts[LOGS].artifacts.add(name=LOGS, uri=str(logs))
    artifact.type.schema_title = "system.Artifact"
    return message


def run_container(client: docker.DockerClient, *, image: str, command: list[str], **options: Any) -> int:
    """Runs a container to its end, prints what it printed and returns its exit status.

    It stands in for `kfp.local`'s own, which lets the container be removed when it ends: podman then cuts off its last
    lines, and an exit status that can no longer be asked for is taken for success.
    """
    container = client.containers.run(image=image, command=command, detach=True, **options)
    try:
        # podman 4.3 answers a wait by asking itself all the time, which takes half a core.
        while container.status not in ("exited", "stopped", "dead"):
            time.sleep(1)
            container.reload()
        print(container.logs().decode(), flush=True)
        return int(container.attrs["State"]["ExitCode"])
    finally:
        container.remove(force=True)


def retries(package: dict[str, Any]) -> dict[str, str]:
    """Returns the variables of the containers, which `kfp.local` does not hand on."""
    containers = [executor["container"] for executor in package["deploymentSpec"]["executors"].values()]
    return {item["name"]: item["value"] for container in containers for item in container.get("env", [])}


def main(file: str, root: str, *parameters: str) -> int:
    package = next(iter(yaml.safe_load_all(Path(file).read_text())))
    spec = json_format.ParseDict(package, pipeline_spec_pb2.PipelineSpec())
    runner = local.DockerRunner(**RESTRICTED, environment=retries(package), labels={"marco-test": root})
    local.init(runner, pipeline_root=root, raise_on_error=False)
    executor_input_utils.construct_executor_input = as_launcher
    docker_task_handler.run_docker_container = run_container
    # A busy machine may take more than the minute that docker-py allows podman for an answer.
    docker.from_env = functools.partial(docker.from_env, timeout=600)
    stopped = ""
    try:
        pipeline_orchestrator.run_local_pipeline(spec, dict(parameter.split("=", 1) for parameter in parameters))
    except Exception as error:
        # A step that failed unnoticed may break kfp.local later; the outputs show which step it was.
        stopped = f"{type(error).__name__}: {error}"
        print(stopped, file=sys.stderr)
    found = problems(package, Path(root))
    if stopped and not found:
        found["kfp.local"] = stopped
    Path(root, "problems.json").write_text(json.dumps(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
