"""Which steps of a compiled package Kubeflow Pipelines would run again.

After KFP's backend/src/v2/cacheutils/cache.go: the key of a task is made of its container's image and arguments, the
values of its input parameters, the names of its input artifacts and the specification of its outputs. An artifact that
a cached task gives is the artifact of the earlier run, so its name follows from that task's key.
"""

import hashlib
import json


def cache_keys(package, values, produced):
    """Returns the key of each task that may be cached.

    `values`: parameters of the submission; `produced`: output parameters, by task and name.
    """
    keys = {}
    tasks = package["root"]["dag"]["tasks"]
    defaults = package["root"]["inputDefinitions"]["parameters"]
    submitted = {name: values.get(name, parameter["defaultValue"]) for name, parameter in defaults.items()}

    def value(parameter):
        if "runtimeValue" in parameter:
            return parameter["runtimeValue"]["constant"]
        if "componentInputParameter" in parameter:
            return submitted[parameter["componentInputParameter"]]
        output = parameter["taskOutputParameter"]
        return produced[output["producerTask"]][output["outputParameterKey"]]

    def key(name):
        if name not in keys:
            inputs = tasks[name].get("inputs", {})
            sources = {artifact: kind["taskOutputArtifact"] for artifact, kind in inputs.get("artifacts", {}).items()}
            artifacts = {
                artifact: [key(source["producerTask"]), source["outputArtifactKey"]]
                for artifact, source in sources.items()
            }
            container = package["deploymentSpec"]["executors"][f"{name}_executor"]["container"]
            content = {
                "inputArtifactNames": artifacts,
                "inputParameterValues": {
                    parameter: value(kind) for parameter, kind in inputs.get("parameters", {}).items()
                },
                "outputs": package["components"][name].get("outputDefinitions", {}),
                "cmdArgs": [*container["command"], *container["args"]],
                "image": container["image"],
            }
            keys[name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return keys[name]

    return {name: key(name) for name, task in tasks.items() if task["cachingOptions"]["enableCache"]}
