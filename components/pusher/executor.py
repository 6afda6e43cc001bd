"""Publishes a blessed model and registers it; an unblessed one is registered as challenger only."""

import json
import os
from typing import Any

from absl import logging
from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.mlflow_tracking import names, registry, tracking
from components.pusher import storage
from components.pusher.record import RECORD_FILE
from marco_model.model_directory import class_names

POD_RUN = "MARCO_RUN"
"""Where a step on Kubeflow Pipelines finds its run's id (`pipelines.kubeflow_package`)."""


class Executor(base_executor.BaseExecutor):
    """Folder first, registry second: what is registered as champion can be served."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes if blessed; running it again changes nothing.

        Raises:
            InputError: the destination cannot be used, or MLflow cannot be reached.
        ClusterError: the service of a bucket fails; nothing was published.
        """
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_instance(output_dict["pushed_model"])
        run = tracking.run_of_model(model.uri)
        if run and exec_properties["run_label"]:
            run.set_tags({"run_label": exec_properties["run_label"]})
        version = registered = None
        name = exec_properties["registered_model"]
        with storage.on_this_machine(path_utils.serving_model_dir(model.uri)) as saved_model:
            if model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict["model_blessing"])):
                note = {"model": model.uri, "mlflow_run_id": run.run_id if run else None}
                version = storage.publish(saved_model, exec_properties["destination"], note)
                logging.info("Published as %s%s.", version.path, ", where it was already" if version.unchanged else "")
            else:
                logging.warning("The model is not blessed and so is not published.")
            if run and name:
                registered = registry.register(
                    run,
                    name,
                    saved_model,
                    classes=class_names(saved_model),
                    fingerprint=storage.fingerprint(saved_model),
                    published_at=version.path if version else None,
                    tags=self._lineage(exec_properties),
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
        io_utils.write_string_file(f"{output.uri}/{RECORD_FILE}", json.dumps(record, indent=1) + "\n")

    def _lineage(self, properties: dict[str, Any]) -> dict[str, str]:
        """Returns the tags that say which run of which pipeline made a version, and what it was judged against."""
        pipeline = getattr(self._context, "pipeline_info", None)
        return {
            names.JUDGED_AGAINST: properties["judged_against"],
            names.SIGNATURE: properties["signature"],
            names.PIPELINE: pipeline.id if pipeline else "",
            names.PIPELINE_RUN: os.environ.get(POD_RUN) or getattr(self._context, "pipeline_run_id", None) or "",
        }
