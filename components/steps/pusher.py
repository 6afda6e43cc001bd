"""The steps that let a model out: Pusher and EndpointPusher.

The Pusher publishes a blessed model as a version and registers it in MLflow. TFX's own Pusher copies file by file to
where servers look; this one shows a version all at once. Its executor is a class and not a function, since a version
is registered with its pipeline and run, which TFX gives to an executor's context alone.

The EndpointPusher deploys a published model to an endpoint of Vertex AI, where examples check it. TFX's own uploads a
new model each time, never takes the old one away and checks nothing.
"""

import json
import os

from absl import logging
from tfx.dsl.component.experimental import annotations, decorators
from tfx.dsl.components.base import base_executor, executor_spec
from tfx.types import Artifact, artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import artifacts, mlflow_registry, mlflow_runs, published_models
from components.vertex import api, golden, options, rollout
from marco_model import model_directory

DEPLOYMENT_FILE = "deployment.json"
POD_RUN = "MARCO_RUN"
"""Where a step on Kubeflow Pipelines finds its run's id (`pipelines.compilation`)."""


class Executor(base_executor.BaseExecutor):
    """Publishes first and registers second, so that whatever is registered as champion can be served."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, str],
    ) -> None:
        """Pushes if blessed; running it again changes nothing.

        Raises:
            InputError: the destination cannot be used, or MLflow cannot be reached.
            ClusterError: the service of a bucket fails; nothing was published.
        """
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_instance(output_dict["pushed_model"])
        run = mlflow_runs.run_of_model(model.uri)
        if run and exec_properties["run_label"]:
            run.set_tags({"run_label": exec_properties["run_label"]})
        if run:
            run.describe(exec_properties["run_name"], exec_properties["note"])
        version = registered = None
        name = exec_properties["registered_model"]
        with published_models.on_this_machine(path_utils.serving_model_dir(model.uri)) as saved_model:
            if artifacts.is_blessed(artifact_utils.get_single_instance(input_dict["model_blessing"])):
                note = {"model": model.uri, "mlflow_run_id": run.run_id if run else None}
                version = published_models.publish(saved_model, exec_properties["destination"], note)
                logging.info("Published as %s%s.", version.path, ", where it was already" if version.unchanged else "")
            else:
                logging.warning("The model is not blessed and so is not published.")
            if run and name:
                pipeline = getattr(self._context, "pipeline_info", None)
                pipeline_run = os.environ.get(POD_RUN) or getattr(self._context, "pipeline_run_id", None) or ""
                registered = mlflow_registry.register(
                    run,
                    name,
                    saved_model,
                    classes=model_directory.class_names(saved_model),
                    fingerprint=model_directory.model_fingerprint(saved_model),
                    published_at=version.path if version else None,
                    tags={
                        mlflow_runs.JUDGED_AGAINST: exec_properties["judged_against"],
                        mlflow_runs.SIGNATURE: exec_properties["signature"],
                        mlflow_runs.PIPELINE: pipeline.id if pipeline else "",
                        mlflow_runs.PIPELINE_RUN: pipeline_run,
                    },
                )
        output.set_int_custom_property("pushed", int(version is not None))
        if version:
            output.set_string_custom_property("pushed_destination", version.path)
            output.set_string_custom_property("pushed_version", str(version.number))
        record = {
            "pushed": version is not None,
            "path": version.path if version else None,
            "version": version.number if version else None,
            "registered_model": name if registered else None,
            "registered_version": registered,
        }
        io_utils.write_string_file(f"{output.uri}/{published_models.RECORD_FILE}", json.dumps(record, indent=1) + "\n")


@decorators.component
def Pusher(
    model: annotations.InputArtifact[standard_artifacts.Model],
    model_blessing: annotations.InputArtifact[standard_artifacts.ModelBlessing],
    pushed_model: annotations.OutputArtifact[standard_artifacts.PushedModel],
    destination: annotations.Parameter[str],
    registered_model: annotations.Parameter[str],
    run_label: annotations.Parameter[str],
    run_name: annotations.Parameter[str],
    note: annotations.Parameter[str],
    judged_against: annotations.Parameter[str],
    signature: annotations.Parameter[str],
) -> None:
    """Publishes `model` if `model_blessing` is positive; outputs `pushed_model` (`components.published_models`).

    `destination`: a folder for versions. `registered_model`: a name in MLflow's registry. `run_label`, `run_name` and
    `note`: a tag, the name and the description of the run in MLflow. Each may be empty. `judged_against` and
    `signature`: the gate's parameters (`components.champion.Judging`), kept with the registered version. The work
    is `Executor`'s, which knows its pipeline and run.
    """


Pusher.EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


@decorators.component
def EndpointPusher(
    pushed_model: annotations.InputArtifact[standard_artifacts.PushedModel],
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    deployment: annotations.OutputArtifact[artifacts.Deployment],
    vertex: annotations.Parameter[str],
    endpoint: annotations.Parameter[str],
    model_name: annotations.Parameter[str],
) -> None:
    """Writes `deployment.json`; running it again changes nothing, since it reads the state from the service.

    JSON: `vertex` and `endpoint` (`components.vertex.options`). `model_name`: the model's if `endpoint.model` is empty.
    Raises what `components.vertex.rollout.push_model` does.
    """
    record: dict = {"deployed": False}
    uri = published_models.published_path(pushed_model.uri)
    if uri:
        place = options.Vertex.model_validate_json(vertex)
        chosen = options.Endpoint.model_validate_json(endpoint)

        def images() -> list[golden.Image]:
            if chosen.golden:
                return golden.in_place(chosen.golden)
            return golden.of_examples(artifacts.split_files(examples, "eval"), chosen.golden_images)

        client = api.Api(place, api.PACE)
        record = rollout.push_model(client, chosen, chosen.model or model_name, uri, images).record()
        deployment.set_string_custom_property("version", record["version"])
    else:
        logging.warning("The model was not published and so is not deployed.")
    deployment.set_int_custom_property("deployed", int(record["deployed"]))
    io_utils.write_string_file(f"{deployment.uri}/{DEPLOYMENT_FILE}", json.dumps(record, indent=1) + "\n")
