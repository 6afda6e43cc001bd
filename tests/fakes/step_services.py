"""What surrounds the container of a step on Kubeflow Pipelines and on Vertex AI: messages, files, kept outputs.

`Kubeflow` was written from kubeflow/pipelines, tags 2.5.0, 2.15.0, 2.16.1 and 2.17.0:

- `backend/src/v2/driver/driver.go`, `provisionOutputs`: each output lies at ROOT/STEP/SALT/NAME. With the API server's
  default `PUBLISH_LOGS=true` the output `executor-logs` of type `system.Artifact` is added to every step. From 2.15 on
  outputs have their name, and `outputFile` lies beside them; before, it lies in /tmp/kfp_outputs.
- `backend/src/v2/metadata/converter.go`, `toRuntimeArtifact`: inputs have an id, a URI and metadata, and no type.
- `backend/src/v2/component/launcher_v2.go`: `LocalPathForURI`, `downloadArtifacts`; `prepareOutputFolders` makes the
  folder around each output, not the output; `getLogWriter` makes the file of `executor-logs`, to whose name 2.16.1 and
  later add the number of the attempt (`qualifyExecutorLogsURI`); `uploadOutputArtifacts` ignores what the executor says
  of `executor-logs`, and an output that was not written.

`Vertex` follows TFX 1.21, `tfx/orchestration/kubeflow/v2/container/kubeflow_v2_run_executor.py`: artifacts have their
types, and lie, with the output file, on `gs://`.

Steps run in this process, one after the other.
"""

import importlib
import json
import re
import shutil
import uuid
from pathlib import Path

from tests import packages

LOGS = "executor-logs"


class Service:
    """Runs the steps of `package` below `root`, a URI; `parameters`: those of the run.

    `artifacts`: the URI and metadata of each output, by step and name. `values`: output parameters likewise.
    """

    def __init__(self, package, root, parameters=None):
        self.package, self.root = package, root
        self.artifacts, self.values = {}, {}
        declared = package["root"]["inputDefinitions"]["parameters"]
        self.parameters = {name: value["defaultValue"] for name, value in declared.items()} | (parameters or {})

    def executor_input(self, step):
        """Returns ExecutorInput of a step, whose inputs have been made."""
        task, component = packages.tasks(self.package)[step], self.package["components"][step]
        inputs, outputs = task.get("inputs", {}), component.get("outputDefinitions", {})
        place = f"{self.root}/{step}/{uuid.uuid4()}"
        artifacts = {
            name: {"artifacts": [self.input_artifact(component, name, value["taskOutputArtifact"])]}
            for name, value in inputs.get("artifacts", {}).items()
        }
        return {
            "inputs": {
                "artifacts": artifacts,
                "parameterValues": {name: self._value(item) for name, item in inputs.get("parameters", {}).items()},
            },
            "outputs": {
                "artifacts": self.output_artifacts(outputs.get("artifacts", {}), place),
                "parameters": {
                    name: {"outputFile": self.parameter_file(place, name)} for name in outputs.get("parameters", {})
                },
                "outputFile": self.output_file(place),
            },
        }

    def _value(self, item):
        if "runtimeValue" in item:
            return item["runtimeValue"]["constant"]
        if "componentInputParameter" in item:
            return self.parameters[item["componentInputParameter"]]
        source = item["taskOutputParameter"]
        return self.values[source["producerTask"], source["outputParameterKey"]]

    def source(self, reference):
        """Returns the URI and metadata of the output that an input of a task names."""
        return self.artifacts[reference["producerTask"], reference["outputArtifactKey"]]

    def command(self, step, message):
        """Returns the module that a step runs and its arguments, with the placeholders filled in."""
        container = packages.containers(self.package)[step]
        *_, module = [part for part in container["command"] if part.startswith("components.")]
        options = [part for part in container["command"] if part.startswith("--")]

        def filled(text):
            values = message["inputs"]["parameterValues"]
            files = message["outputs"]["parameters"]
            text = re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", lambda match: values[match[1]], text)
            file = r"\{\{\$\.outputs\.parameters\['(\w+)'\]\.output_file\}\}"
            return re.sub(file, lambda match: files[match[1]]["outputFile"], text)

        arguments = [json.dumps(message) if text == "{{$}}" else filled(text) for text in container["args"]]
        return module, options + arguments

    def run(self, step):
        """Runs a step and keeps its outputs; returns the ExecutorInput that it got."""
        message = self.executor_input(step)
        self.prepare(message)
        module, arguments = self.command(step, message)
        importlib.import_module(module).main(arguments)
        self.finish(step, message)
        return message

    def keep(self, step, message, output):
        """Records what a step says of its outputs, and the values of its output parameters."""
        for name, group in message["outputs"]["artifacts"].items():
            (artifact,) = group["artifacts"]
            (reported,) = output.get("artifacts", {}).get(name, {"artifacts": [{}]})["artifacts"]
            if name != LOGS and reported:
                assert reported["uri"] == artifact["uri"], f"{step} moved its output {name} to {reported['uri']}"
            self.artifacts[step, name] = artifact["uri"], reported.get("metadata", {})
        for name, item in message["outputs"]["parameters"].items():
            self.values[step, name] = Path(item["outputFile"]).read_text()


class Kubeflow(Service):
    """Kubeflow Pipelines `version`; `folder` has its `bucket`, and below `staged` what a container finds at /minio."""

    scheme = "minio://"

    def __init__(self, package, folder, version="2.17.0", **options):
        super().__init__(package, f"{self.scheme}mlpipeline/v2/artifacts/marco-local/{uuid.uuid4()}", **options)
        self.folder, self.version = folder, tuple(map(int, version.split(".")))

    def input_artifact(self, component, name, reference):
        number = list(self.artifacts).index((reference["producerTask"], reference["outputArtifactKey"])) + 1
        uri, metadata = self.source(reference)
        return {"name": str(number), "uri": uri, "metadata": metadata}

    def output_artifacts(self, definitions, place):
        suffix = "-0" if self.version >= (2, 16, 1) else ""
        artifacts = {
            name: {"uri": f"{place}/{name}", "type": definition["artifactType"], "metadata": {}}
            for name, definition in definitions.items()
        }
        artifacts[LOGS] = {
            "uri": f"{place}/{LOGS}{suffix}",
            "type": {"schemaTitle": "system.Artifact"},
            "metadata": {},
        }
        if self.version >= (2, 15, 0):
            artifacts = {name: {"name": name, **artifact} for name, artifact in artifacts.items()}
        return {name: {"artifacts": [artifact]} for name, artifact in artifacts.items()}

    def output_file(self, place):
        if self.version < (2, 15, 0):
            return str(self.folder / "tmp/kfp_outputs/output_metadata.json")
        return f"{self.local(place)}/output_metadata.json"

    def parameter_file(self, place, name):
        return str(self.folder / "tmp/kfp/outputs" / name)

    def staging(self):
        """Returns the mapping from schemes to folders that `components.steps.entrypoint` uses in this container."""
        return {self.scheme: f"{self.folder}/staged/"}

    def local(self, uri):
        return self.folder / "staged" / uri.removeprefix(self.scheme)

    def stored(self, uri):
        """Returns where the bucket keeps a URI."""
        return self.folder / "bucket" / uri.removeprefix(self.scheme)

    def prepare(self, message):
        """Makes the files of a fresh container as the launcher does before the step starts."""
        for name in ("staged", "tmp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for group in message["inputs"]["artifacts"].values():
            for artifact in group["artifacts"]:
                if self.stored(artifact["uri"]).exists():
                    shutil.copytree(self.stored(artifact["uri"]), self.local(artifact["uri"]), dirs_exist_ok=True)
        for group in message["outputs"]["artifacts"].values():
            for artifact in group["artifacts"]:
                self.local(artifact["uri"]).parent.mkdir(parents=True, exist_ok=True)
        for item in message["outputs"]["parameters"].values():
            Path(item["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        (logs,) = message["outputs"]["artifacts"][LOGS]["artifacts"]
        self.local(logs["uri"]).touch()

    def finish(self, step, message):
        """Uploads and records what the step left."""
        file = Path(message["outputs"]["outputFile"])
        self.keep(step, message, json.loads(file.read_text()) if file.exists() else {})
        for group in message["outputs"]["artifacts"].values():
            for artifact in group["artifacts"]:
                source, target = self.local(artifact["uri"]), self.stored(artifact["uri"])
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target)
                elif source.exists():
                    shutil.copy(source, target)


class Vertex(Service):
    """Vertex AI Pipelines with `root` on `gs://`; `folder` has the files of output parameters."""

    def __init__(self, package, root, folder, **options):
        super().__init__(package, f"{root}/123456789/marco-local", **options)
        self.folder = folder

    def input_artifact(self, component, name, reference):
        uri, metadata = self.source(reference)
        kind = component["inputDefinitions"]["artifacts"][name]["artifactType"]
        place = (
            f"projects/123456789/locations/europe-west4/metadataStores/default/artifacts/{'-'.join(reference.values())}"
        )
        return {"name": place, "uri": uri, "type": kind, "metadata": metadata}

    def output_artifacts(self, definitions, place):
        return {
            name: {
                "artifacts": [{"name": name, "uri": f"{place}/{name}", "type": kind["artifactType"], "metadata": {}}]
            }
            for name, kind in definitions.items()
        }

    def output_file(self, place):
        return f"{place}/executor_output.json"

    def parameter_file(self, place, name):
        return str(self.folder / "parameters" / name)

    def prepare(self, message):
        (self.folder / "parameters").mkdir(exist_ok=True)

    def finish(self, step, message):
        from marco_model import store

        file = message["outputs"]["outputFile"]
        self.keep(step, message, json.loads(store.read_bytes(file)) if store.exists(file) else {})
