"""Runs the graph on this machine: draws synthetic data if the preset has some, shows each step, sums up the results."""

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

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from components.evaluations import ALL, OVERALL, SLICES, slice_metrics
from components.gate import read_decision
from components.published_models import published_path
from components.report.page import HTML_FILE
from components.settings import NONE, REGISTRY
from marco_model.errors import InputError
from marco_model.store import absolute, whole_file
from pipelines import places
from pipelines.configuration import Configuration

# Loggers whose INFO lines are meant for people.
_OURS = ("marco_model", "marco_data", "components", "pipelines")
# Loggers that would print past the root's handlers.
_WITH_HANDLERS = ("absl", "tensorflow", "mlflow")


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
        steps = last_run(metadata_file, configuration.name)
    results = summarize(steps, output)
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
        gate = gate.model_copy(update={"champion": absolute(gate.champion)})
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


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One step of a run: whether its outputs were reused, its seconds, and the URI of each output by channel name."""

    name: str
    reused: bool
    seconds: float
    outputs: dict[str, str]


def last_run(database: pathlib.Path, pipeline: str) -> dict[str, StepRecord]:
    """Returns the steps of the newest run, by name in the order they began. `database`: the SQLite store."""
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READONLY
    store = metadata_store.MetadataStore(config)
    runs = [run for run in store.get_contexts_by_type("pipeline_run") if _of_pipeline(store, run, pipeline)]
    if not runs:
        return {}
    newest = max(runs, key=lambda run: run.create_time_since_epoch)
    executions = sorted(
        store.get_executions_by_context(newest.id), key=lambda execution: execution.create_time_since_epoch
    )
    steps = (_step(store, execution, pipeline) for execution in executions)
    return {step.name: step for step in steps}


def _of_pipeline(store: metadata_store.MetadataStore, run: pb.Context, pipeline: str) -> bool:
    return any(parent.name == pipeline for parent in store.get_parent_contexts_by_context(run.id))


def _step(store: metadata_store.MetadataStore, execution: pb.Execution, pipeline: str) -> StepRecord:
    nodes = [context.name for context in store.get_contexts_by_execution(execution.id) if context.type == "node"]
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    return StepRecord(
        name=nodes[0].removeprefix(f"{pipeline}."),
        reused=execution.last_known_state == pb.Execution.CACHED,
        seconds=milliseconds / 1_000,
        outputs=_outputs(store, execution.id),
    )


def _outputs(store: metadata_store.MetadataStore, execution: int) -> dict[str, str]:
    produced = [e for e in store.get_events_by_execution_ids([execution]) if e.type == pb.Event.OUTPUT]
    uris = {artifact.id: artifact.uri for artifact in store.get_artifacts_by_id([e.artifact_id for e in produced])}
    return {event.path.steps[0].key: uris[event.artifact_id] for event in produced}


def summarize(steps: dict[str, StepRecord], output: pathlib.Path) -> dict[str, Any]:
    """Returns the summary of a finished local run into the folder `output` from its steps' outputs.

    `blessed`, `failures` (why it is not), `decision` (the gate's `blessed`, `reasons` and `champion`), `accuracy`,
    `examples` (split → count), `quarantined`, `reasons`, `left_out` (by the label scheme), `left_out_labels`, `classes`
    (name, in index order → `precision`, `recall`, null where no image decides them, and `count`), `slices.institution`
    and `slices.imager` (name → `accuracy` and `count`), `model_path` (null where nothing was published),
    `report_path` (the page to open), `mlflow_run_id`, `evaluation` (the Evaluator's artifact, from `output` on where
    it lies there) and `model_fingerprint` (of the model that it judged, null where it does not say), `seconds` (step →
    seconds), `reused` (steps that were not run again), `resumed_from` (training's first step).
    """
    ingested = _json(steps["MarcoExampleGen"].outputs["quarantine"], "summary.json")
    evaluation = slice_metrics(steps["Evaluator"].outputs["evaluation"])
    decision = read_decision(steps["ChampionGate"].outputs["decision"])
    training = _json(steps["Trainer"].outputs["model"], "training.json")
    slices = {
        kind: {name: {"accuracy": values["accuracy"], "count": values["count"]} for name, values in by_name.items()}
        for kind, by_name in evaluation["slices"].items()
        if kind in SLICES
    }
    overall = evaluation["slices"][OVERALL][ALL]
    return {
        "blessed": decision["blessed"],
        "failures": [] if decision["blessed"] else decision["reasons"],
        "decision": {name: decision[name] for name in ("blessed", "reasons", "champion")},
        "accuracy": overall["accuracy"],
        "examples": ingested["splits"],
        "quarantined": ingested["quarantined"],
        "reasons": ingested["reasons"],
        "left_out": ingested["left_out"],
        "left_out_labels": ingested["left_out_labels"],
        "classes": {
            name: {
                "precision": overall[f"precision/{name}"],
                "recall": overall[f"recall/{name}"],
                "count": sum(overall["confusion_matrix"][index]),
            }
            for index, name in enumerate(evaluation["classes"])
        },
        "slices": slices,
        "model_path": published_path(steps["Pusher"].outputs["pushed_model"]) if decision["blessed"] else None,
        "report_path": str(pathlib.Path(steps["Report"].outputs["report"]) / HTML_FILE),
        "mlflow_run_id": training["mlflow_run_id"],
        "tracking_uri": training["tracking_uri"],
        "evaluation": _from(output, steps["Evaluator"].outputs["evaluation"]),
        "model_fingerprint": evaluation.get("model"),
        "seconds": {step.name: round(step.seconds, 1) for step in steps.values()},
        "reused": [step.name for step in steps.values() if step.reused],
        "resumed_from": training["resumed_from"],
    }


def _json(folder: str, name: str) -> dict[str, Any]:
    return dict(json.loads((pathlib.Path(folder) / name).read_text()))


def _from(output: pathlib.Path, path: str) -> str:
    """Returns `path` relative to `output`, which users move and rename; unchanged if it lies elsewhere."""
    folder = output.resolve()
    return str(pathlib.Path(path).relative_to(folder)) if folder in pathlib.Path(path).parents else path


def summary_table(summary: dict[str, Any]) -> Any:
    """Returns a rich table with a row overall, per class and per slice: the share scored right and the images."""
    from rich.table import Table
    from rich.text import Text  # Users' names may look like markup or emoji codes.

    table = Table(title="Accuracy on the evaluation split", title_justify="left")
    table.add_column("slice")
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("images", justify="right")
    table.add_row("overall", "", f"{summary['accuracy']:.1%}", f"{summary['examples']['eval']:,}", end_section=True)
    for name, values in summary["classes"].items():
        recall = "–" if values["recall"] is None else f"{values['recall']:.1%}"
        table.add_row("class", Text(name), recall, f"{values['count']:,}")
    table.add_section()
    for kind, slices in summary["slices"].items():
        for name, values in sorted(slices.items()):
            table.add_row(kind, Text(name), f"{values['accuracy']:.1%}", f"{values['count']:,}")
        table.add_section()
    return table


def closing_lines(summary: dict[str, Any], output: pathlib.Path) -> list[str]:
    """Returns the lines after the table: counts, verdict, and what to do next."""
    lines = [f"{sum(summary['examples'].values()):,} images used, {summary['quarantined']:,} quarantined"]
    if summary["left_out"]:
        labels = ", ".join(f"{label} {count:,}" for label, count in summary["left_out_labels"].items())
        lines.append(f"{summary['left_out']:,} left out: {labels}")
    if summary["reused"]:
        lines.append(f"unchanged and reused: {', '.join(summary['reused'])}")
    if summary["blessed"]:
        lines += [
            f"the gate: {'; '.join(summary['decision']['reasons'])}",
            f"blessed and published: {summary['model_path']}",
            f"score images:  marco predict --model {summary['model_path']} --output scores.csv FOLDER",
        ]
    else:
        lines.append(f"not blessed, nothing published: {'; '.join(summary['failures'])}")
    return [
        *lines,
        f"the report:    {summary['report_path']}",
        f"compare runs:  mlflow ui --backend-store-uri {summary['tracking_uri']}",
        f"everything:    {output / 'summary.json'}",
    ]
