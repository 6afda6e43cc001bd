"""Runs the graph on this machine: draws synthetic data if the preset has some, shows each step, writes the summary."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from components.report.page import HTML_FILE
from components.settings import NONE, REGISTRY
from marco_model.errors import InputError
from marco_model.store import absolute, whole_file
from pipelines import places, summary
from pipelines.configuration import Configuration

# Loggers whose INFO lines are meant for people.
_OURS = ("marco_model", "marco_data", "components", "pipelines")

# Loggers that would print past the root's handlers.
_WITH_HANDLERS = ("absl", "tensorflow", "mlflow")


class StepLines(logging.Handler):
    """Shows on stderr how each step begins and ends, our own log records, and errors of others."""

    def __init__(self, steps: int) -> None:
        super().__init__(logging.INFO)
        self._steps = steps
        self._number = 0
        self._start = 0.0

    def begin(self, step: str) -> None:
        """Shows that a step begins."""
        self._number += 1
        self._start = time.monotonic()
        self._print(f"[{self._number}/{self._steps}] {step}")

    def end(self, reused: bool) -> None:
        """Shows that the step has ended, or that its outputs were reused."""
        self._print(f"      {'unchanged, reused' if reused else f'done in {time.monotonic() - self._start:.0f} s'}")

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record; TFX's launcher only repeats the exception that follows."""
        if record.name.startswith(_OURS) or (record.levelno >= logging.ERROR and record.module != "launcher"):
            self._print(f"      {record.getMessage().splitlines()[0]}")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def dag_runner(metadata_file: pathlib.Path, step_lines: StepLines) -> Any:
    """Returns TFX's LocalDagRunner with a report of each step.

    TFX has no hook between steps, so this runs the nodes as `LocalDagRunner.run_with_ir` does (TFX 1.16 and 1.21,
    tfx/orchestration/local/local_dag_runner.py), with the same launcher.
    """
    from ml_metadata.proto import metadata_store_pb2
    from tfx.dsl.compiler import constants
    from tfx.orchestration import metadata
    from tfx.orchestration.local import runner_utils
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.portable import launcher, runtime_parameter_utils

    connection = metadata.sqlite_metadata_connection_config(str(metadata_file))

    def is_reused(execution: int) -> bool:
        with metadata.Metadata(connection) as handle:
            (state,) = handle.store.get_executions_by_id([execution])
        return bool(state.last_known_state == metadata_store_pb2.Execution.CACHED)

    class Runner(LocalDagRunner):
        def run_with_ir(self, pipeline: Any, run_options: Any = None) -> None:
            run_id = datetime.datetime.now().isoformat()
            runtime_parameter_utils.substitute_runtime_parameter(
                pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
            )
            deployment = runner_utils.extract_local_deployment_config(pipeline)
            for node in pipeline.nodes:
                step = node.pipeline_node.node_info.id
                step_lines.begin(step)
                execution = launcher.Launcher(
                    pipeline_node=node.pipeline_node,
                    mlmd_connection=metadata.Metadata(connection),
                    pipeline_info=pipeline.pipeline_info,
                    pipeline_runtime_spec=pipeline.runtime_spec,
                    executor_spec=runner_utils.extract_executor_spec(deployment, step),
                    custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, step),
                ).launch()
                step_lines.end(execution is not None and is_reused(execution.execution_id))

    return Runner()


@contextlib.contextmanager
def run_log(steps: int, log_file: pathlib.Path) -> Iterator[StepLines]:
    """Yields what shows the steps of a pipeline on stderr, and keeps the whole log in `log_file` meanwhile."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.INFO)
    for name in _WITH_HANDLERS:
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    log_file.parent.mkdir(parents=True, exist_ok=True)
    whole = logging.FileHandler(log_file)
    whole.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    step_lines = StepLines(steps)
    root.handlers = [whole, step_lines]
    root.setLevel(logging.INFO)
    try:
        yield step_lines
    finally:
        root.handlers = before
        root.setLevel(level)
        whole.close()


log = logging.getLogger(__name__)


def run(configuration: Configuration, output: pathlib.Path) -> dict[str, Any]:
    """Runs the whole pipeline below `output` and returns the summary, which is also written to `output/summary.json`.

    Steps whose inputs and settings have not changed are not run again. Raises `InputError` if there are no data, or if
    a step refuses them.
    """
    output.mkdir(parents=True, exist_ok=True)
    configuration = _absolute(configuration)
    source = _source(configuration, output)
    from components.champion import Judging, signature
    from components.trainer.job import TrainingParameters
    from marco_data.shards import fingerprint
    from marco_model.weights import initial_fingerprint
    from pipelines.configuration import label_scheme
    from pipelines.pipeline import create_pipeline
    from pipelines.places import lookup

    where = places.local(configuration, output)
    metadata_file = output.resolve() / "metadata.db"
    scheme = label_scheme(configuration.labels, source)
    content = fingerprint([source], configuration.data.overlay)
    parameters = TrainingParameters(source, content, initial_fingerprint(configuration.network.initial))
    champion = lookup(configuration, scheme.classes, where)
    own = signature(champion.settings, parameters.fingerprint, parameters.initial, parameters.steps)
    judging = Judging(champion.to_beat(own), own)
    pipeline = create_pipeline(configuration, where, scheme, parameters, judging, metadata_file=metadata_file)
    with run_log(len(pipeline.components), output / "run.log") as step_lines:
        dag_runner(metadata_file, step_lines).run(pipeline)
        steps = summary.last_run(metadata_file, configuration.name)
    results = summary.summarize(steps, output)
    results["report_path"] = str(shutil.copyfile(results["report_path"], output.resolve() / HTML_FILE))
    with whole_file(output / "summary.json") as file:
        file.write(json.dumps(results, indent=2) + "\n")
    return results


def _absolute(configuration: Configuration) -> Configuration:
    """Returns the configuration with absolute paths of its overlay and champion, which steps read elsewhere.

    The overlay is read first, so that errors come early.
    """
    data, gate = configuration.data, configuration.gate
    if data.overlay:
        from marco_data.overlay import read_overlay

        read_overlay(data.overlay)
        data = data.model_copy(update={"overlay": absolute(data.overlay)})
    if gate.champion not in (REGISTRY, NONE):
        gate = dataclasses.replace(gate, champion=absolute(gate.champion))
    return configuration.model_copy(update={"data": data, "gate": gate})


def _source(configuration: Configuration, output: pathlib.Path) -> str:
    """Returns where the shards are; draws them first if the configuration asks for synthetic ones."""
    data = configuration.data
    if data.source:
        return absolute(data.source)
    if data.synthetic is None:
        raise InputError("the configuration names no data; give --data FOLDER, or data.synthetic in the preset")
    from marco_data.synthetic import Settings, synthesize

    settings = Settings(**data.synthetic.model_dump(exclude={"images"}))
    folder = output.resolve() / "data"
    synthesize(folder, data.synthetic.images, settings, overwrite=True)
    return str(folder)
