"""An executor that runs as a container of Kubeflow Pipelines does, on staged paths."""

import atexit
import os
import pathlib

from tfx.dsl.components.base import base_executor

from components.steps import entrypoint
from marco_model.errors import InputError


class Executor(base_executor.BaseExecutor):
    """Reads a schema and writes its content beside the anomalies, or refuses."""

    def Do(self, input_dict, output_dict, exec_properties):
        (schema,), (anomalies,) = input_dict["schema"], output_dict["anomalies"]
        if exec_properties["note"] == "refuse":
            raise InputError("the note is 'refuse'; give another")
        text = pathlib.Path(schema.uri, "schema.pbtxt").read_text()
        pathlib.Path(anomalies.uri, "seen").write_text(f"{schema.type_name} {text} {exec_properties['note']}")
        anomalies.set_int_custom_property("found", 0)


def run(staged):
    """Runs the entrypoint with the process's arguments; minio:// is staged in the folder `staged`."""
    # Libraries of TFX do this in their destructors.
    atexit.register(os.abort)
    entrypoint._STAGED = {"minio://": f"{staged}/"}
    entrypoint.run()
