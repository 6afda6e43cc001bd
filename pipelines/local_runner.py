"""Runs the graph on this machine: shows each step, and sums up the results.

TFX reuses a step of an earlier run into the same folder if the folders of its outputs exist. Here the files in them are
listed when a step ends, and a step that has lost one since is run again.
"""

import contextlib
import datetime
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging as absl_logging
from rich import table, text

from components import champion, evaluations, gate, leave_out, mlflow_runs, mlflow_store, published_models
from components.report import page
from marco_model import errors, store

log = logging.getLogger(__name__)

STORE, OUTPUT_SIZES = "metadata.db", "files.json"
"""In a run's folder: the store of ML Metadata; and in its folder of steps: `folder`, where that is, and `outputs`, the
size in bytes of each file by the URI of an output and the path below it."""
_STORE_FIX = "delete it to run all steps again; training goes on from its checkpoints, and published models stay"

# Loggers whose INFO lines are meant for people.
_OURS = ("marco_model", "marco_data", "components", "pipelines")
# Loggers that would print past the root's handlers.
_WITH_HANDLERS = ("absl", "tensorflow", "mlflow")


def run(graph: Any, output: Path, name: str = "", note: str = "") -> dict[str, Any]:
    """Runs a pipeline that keeps its files below `output`; returns the summary, also written to `output/summary.json`.

    Steps whose inputs and settings have not changed are not run again. `name` and `note` are those of its run in
    MLflow. With sources left out, the summary has their table as `leave_out` (`components.leave_out`), and its page is
    beside it. Raises `InputError` if a step refuses its data.
    """
    before = mlflow_runs.DESCRIPTION.set((name, note))
    try:
        with run_log(len(graph.components), output / "run.log") as step_lines:
            steps = run_steps(graph, step_lines)
    finally:
        mlflow_runs.DESCRIPTION.reset(before)
    results = summarize(steps, output)
    if results["mlflow_run_id"]:  # Also of a training that was reused.
        mlflow_runs.Run(results["tracking_uri"], results["mlflow_run_id"]).describe(name, note)
    report = Path(results["report_path"])
    results["report_path"] = str(output.resolve() / page.HTML_FILE)
    for name in (page.CARD_FILE, page.HTML_FILE):
        store.write_bytes(str(output / name), report.with_name(name).read_bytes())
    if "LeaveOneOut" in steps:
        compared = Path(steps["LeaveOneOut"].outputs["report"])
        results["leave_out"] = store.read_json(str(compared / leave_out.JSON_FILE))
        store.write_bytes(str(output / leave_out.HTML_FILE), (compared / leave_out.HTML_FILE).read_bytes())
    with store.whole_file(output / "summary.json") as file:
        file.write(json.dumps(results, indent=2) + "\n")
    return results


class _Formatter(logging.Formatter):
    """Leaves out credentials that a library wrote into its log."""

    def format(self, record: logging.LogRecord) -> str:
        return errors.redacted(super().format(record))


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

    def end(self, reused: bool) -> float:
        """Shows that the step has ended, or that its outputs were reused; returns its seconds."""
        seconds = time.monotonic() - self._start
        self._print(f"      {'unchanged, reused' if reused else f'done in {seconds:.0f} s'}")
        return seconds

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record; TFX's launcher only repeats the exception that follows."""
        if record.name.startswith(_OURS) or (record.levelno >= logging.ERROR and record.module != "launcher"):
            self._print(f"      {errors.redacted(record.getMessage().splitlines()[0])}")

    def _print(self, line: str) -> None:
        print(errors.printable(line), file=sys.stderr, flush=True)


@contextlib.contextmanager
def run_log(steps: int, log_file: Path) -> Iterator[StepLines]:
    """Yields what shows the steps of a pipeline on stderr, and keeps the whole log in `log_file` meanwhile."""
    absl_logging.set_verbosity(absl_logging.INFO)
    for name in _WITH_HANDLERS:
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    log_file.parent.mkdir(parents=True, exist_ok=True)
    whole = logging.FileHandler(log_file)
    whole.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
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


class StepRecord(NamedTuple):
    """One step of a run: whether its outputs were reused, its seconds, and the URI of each output by channel name."""

    reused: bool
    seconds: float
    outputs: dict[str, str]


def run_steps(graph: Any, step_lines: StepLines) -> dict[str, StepRecord]:
    """Runs the steps of a TFX pipeline one after the other, and returns them by name in this order.

    TFX's LocalDagRunner has no hook between steps, so this does what its `run_with_ir` does (TFX 1.16 and 1.21,
    tfx/orchestration/local/local_dag_runner.py), with the same launcher and what that module has beside it.
    """
    from tfx.dsl.compiler import compiler, constants
    from tfx.orchestration.local.local_dag_runner import launcher, metadata, runner_utils, runtime_parameter_utils
    from tfx.orchestration.portable.mlmd import execution_lib

    compiled = compiler.Compiler().compile(graph)
    run_id = datetime.datetime.now().isoformat()
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    deployment = runner_utils.extract_local_deployment_config(compiled)
    steps = {}
    folder = Path(graph.pipeline_info.pipeline_root)
    forget_incomplete(folder, graph.metadata_connection_config)
    for node in compiled.nodes:
        name = node.pipeline_node.node_info.id
        step_lines.begin(name)
        execution = launcher.Launcher(
            pipeline_node=node.pipeline_node,
            mlmd_connection=metadata.Metadata(graph.metadata_connection_config),
            pipeline_info=compiled.pipeline_info,
            pipeline_runtime_spec=compiled.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
        ).launch()
        with metadata.Metadata(graph.metadata_connection_config) as handle:
            (state,) = handle.store.get_executions_by_id([execution.execution_id])
            artifacts = execution_lib.get_output_artifacts(handle, execution.execution_id)
        reused = bool(state.last_known_state == type(state).CACHED)
        outputs = {channel: values[0].uri for channel, values in artifacts.items()}
        if not reused:
            record_outputs(folder, outputs.values())
        steps[name] = StepRecord(reused, step_lines.end(reused), outputs)
    return steps


def check_store(output: Path) -> None:
    """Raises `InputError` if the store of ML Metadata in a run's folder is damaged or locked."""
    if (file := output / STORE).is_file():
        mlflow_store.check_database(file, _STORE_FIX)


def forget_incomplete(steps: Path, connection: Any) -> None:
    """Lets TFX run those steps again whose outputs have lost or changed a file, and all steps of a moved folder.

    `steps`: the folder of all steps' outputs. `connection`: to the store, as `metadata.Metadata` takes it. Raises
    `InputError` if the store cannot be opened.
    """
    from tfx.orchestration.local.local_dag_runner import metadata

    facts = _read_facts(steps)
    moved = facts["folder"] != str(steps)
    lost = {uri: "" if moved else _lost(uri, files) for uri, files in facts["outputs"].items()}
    gone = [uri for uri in lost if moved or lost[uri]]
    message = f"{steps.parent / STORE} cannot be used ({{}}); {_STORE_FIX}"
    with errors.translated(errors.InputError, message, Exception), metadata.Metadata(connection) as handle:
        for uri in gone:
            _forget(handle.store, uri)
    if moved:
        log.warning("the steps were run in %s and are run again here, since they name that folder", facts["folder"])
    for uri in gone:
        if lost[uri]:
            log.warning("%s has lost or changed %s: the step is run again", Path(uri).relative_to(steps), lost[uri])
        del facts["outputs"][uri]
    if gone:
        _write_facts(steps, facts)


def record_outputs(steps: Path, uris: Iterable[str]) -> None:
    """Lists the files of a step's outputs."""
    facts = _read_facts(steps)
    facts["outputs"] |= {uri: _sizes(uri) for uri in uris}
    _write_facts(steps, facts)


def _read_facts(steps: Path) -> dict[str, Any]:
    return store.read_json(str(steps / OUTPUT_SIZES)) or {"folder": str(steps), "outputs": {}}


def _write_facts(steps: Path, facts: dict[str, Any]) -> None:
    store.write_bytes(str(steps / OUTPUT_SIZES), json.dumps(facts | {"folder": str(steps)}, indent=1).encode())


def _sizes(uri: str) -> dict[str, int]:
    folder = Path(uri)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _lost(uri: str, files: dict[str, int]) -> str:
    """Returns the first file that is missing or has another size; empty if all are whole."""
    sizes = _sizes(uri)
    return next((name for name, size in files.items() if sizes.get(name) != size), "")


def _forget(metadata_store: Any, uri: str) -> None:
    """Marks the executions that gave this output as failed, so that TFX does not reuse them."""
    artifacts = [artifact.id for artifact in metadata_store.get_artifacts_by_uri(uri)]
    events = metadata_store.get_events_by_artifact_ids(artifacts)
    executions = metadata_store.get_executions_by_id(
        sorted({event.execution_id for event in events if event.type in (event.OUTPUT, event.PENDING_OUTPUT)})
    )
    for execution in executions:
        execution.last_known_state = execution.FAILED
    metadata_store.put_executions(executions)


def summarize(steps: dict[str, StepRecord], output: Path) -> dict[str, Any]:
    """Returns the summary of a finished local run into the folder `output` from its steps' outputs.

    `blessed`, `failures` (why it is not), `decision` (the gate's `blessed`, `reasons` and `champion`), `accuracy`,
    `examples` (split → count), `quarantined`, `lost`, `reasons`, `left_out` (by the label scheme), `left_out_labels`,
    `classes` (name, in index order → `precision`, `recall`, null where no image decides them, and `count`),
    `slices.institution` and `slices.imager` (name → `accuracy` and `count`), `model_path` (null where nothing was
    published), `report_path` (the page to open), `mlflow_run_id`, `evaluation` (the Evaluator's artifact, from `output`
    on where it lies there) and `model_fingerprint` (of the model that it judged), `seconds` (step → seconds), `reused`
    (steps that were not run again), `resumed_from` (training's first step), `best_step` (whose weights the model has; 0
    for those that training began with), `start_accuracy` (of the model that training began with, on the same images as
    `accuracy`; null where it was not the gate's champion).
    """
    ingested = store.read_json(f"{steps['MarcoExampleGen'].outputs['quarantine']}/summary.json")
    evaluation = evaluations.slice_metrics(steps["Evaluator"].outputs["evaluation"])
    decision = gate.read_decision(steps["ChampionGate"].outputs["decision"])
    training = store.read_json(f"{steps['Trainer'].outputs['model']}/training.json")
    slices = {
        kind: {name: {"accuracy": values["accuracy"], "count": values["count"]} for name, values in by_name.items()}
        for kind, by_name in evaluation["slices"].items()
        if kind in evaluations.SLICES
    }
    pushed = steps["Pusher"].outputs["pushed_model"]
    overall = evaluation["slices"][evaluations.OVERALL][evaluations.ALL]
    return {
        "blessed": decision["blessed"],
        "failures": [] if decision["blessed"] else decision["reasons"],
        "decision": {name: decision[name] for name in ("blessed", "reasons", "champion")},
        "accuracy": overall["accuracy"],
        "examples": ingested["splits"],
        "lost": ingested.get("lost", 0),
        **{name: ingested[name] for name in ("quarantined", "reasons", "left_out", "left_out_labels")},
        "classes": {
            name: {
                "precision": overall[f"precision/{name}"],
                "recall": overall[f"recall/{name}"],
                "count": sum(overall["confusion_matrix"][index]),
            }
            for index, name in enumerate(evaluation["classes"])
        },
        "slices": slices,
        "model_path": published_models.published_path(pushed) if decision["blessed"] else None,
        "report_path": str(Path(steps["Report"].outputs["report"]) / page.HTML_FILE),
        "mlflow_run_id": training["mlflow_run_id"],
        "tracking_uri": training["tracking_uri"],
        "evaluation": _from(output, steps["Evaluator"].outputs["evaluation"]),
        "model_fingerprint": evaluation["model"],
        "seconds": {name: round(step.seconds, 1) for name, step in steps.items()},
        "reused": [name for name, step in steps.items() if step.reused],
        "resumed_from": training["resumed_from"],
        "best_step": training["best_step"],
        "start_accuracy": overall["accuracy"] if training["best_step"] == 0 else _start_accuracy(decision),
    }


def _start_accuracy(decision: dict[str, Any]) -> float | None:
    if not decision["champion"] or decision["champion"]["version"] != champion.START:
        return None
    return next((check["champion"] for check in decision["checks"] if check["name"] == gate.ACCURACY), None)


def _from(output: Path, path: str) -> str:
    """Returns `path` relative to `output`, which users move and rename; unchanged if it lies elsewhere."""
    folder = output.resolve()
    return str(Path(path).relative_to(folder)) if folder in Path(path).parents else path


def summary_table(summary: dict[str, Any]) -> table.Table:
    """Returns a rich table with a row overall, per class and per slice: the share scored right and the images."""
    shares = table.Table("slice", "", title="Accuracy on the evaluation split", title_justify="left")
    for column in ("accuracy", "images"):
        shares.add_column(column, justify="right")
    shares.add_row("overall", "", f"{summary['accuracy']:.1%}", f"{summary['examples']['eval']:,}", end_section=True)
    # Users' names may look like markup or emoji codes, which `text.Text` shows as they are.
    for name, values in summary["classes"].items():
        recall = "–" if values["recall"] is None else f"{values['recall']:.1%}"
        shares.add_row("class", text.Text(name), recall, f"{values['count']:,}")
    shares.add_section()
    for kind, slices in summary["slices"].items():
        for name, values in sorted(slices.items()):
            shares.add_row(kind, text.Text(name), f"{values['accuracy']:.1%}", f"{values['count']:,}")
        shares.add_section()
    return shares


def leave_out_table(content: dict[str, Any]) -> table.Table:
    """Returns `components.leave_out`'s content as a rich table: shares at home and away, differences in points."""
    shown = table.Table("", content["attribute"], title="At home, and away: not seen in training", title_justify="left")
    for column in ("images", "home", "away", "points", "interval"):
        shown.add_column(column, justify="right")
    names = {"accuracy": "accuracy", "target": content["target"]}
    for metric, name in names.items():
        for row in content["rows"] if name else []:
            shown.add_row(text.Text(name), text.Text(row["value"]), *_cells(row[metric]))
        if mean := content["mean"][metric]:
            alike = {kind: {"share": mean[kind], "count": None} for kind in ("home", "away")}
            shown.add_row(text.Text(name), "mean", *_cells({**mean, **alike}))
        shown.add_section()
    return shown


def _cells(part: dict[str, Any]) -> list[str]:
    """Returns images, shares at home and away, difference and interval of a comparison."""
    shares = [part[kind]["share"] for kind in ("home", "away")]
    count = "" if part["home"]["count"] is None else f"{part['home']['count']:,}"
    difference = ["–", "too few images"]
    if part["difference"] is not None:
        limits = " to ".join(f"{100 * part[limit]:+.1f}" for limit in ("low", "high"))
        difference = [f"{100 * part['difference']:+.1f}", limits]
    return [count, *("–" if share is None else f"{share:.1%}" for share in shares), *difference]


def closing_lines(summary: dict[str, Any], output: Path) -> list[str]:
    """Returns the lines after the table: counts, verdict, and what to do next."""
    lost = f", about {summary['lost']:,} more lost in rests of shards that cannot be read" if summary["lost"] else ""
    lines = [f"{sum(summary['examples'].values()):,} images used, {summary['quarantined']:,} quarantined{lost}"]
    if summary["left_out"]:
        labels = ", ".join(f"{label} {count:,}" for label, count in summary["left_out_labels"].items())
        lines.append(f"{summary['left_out']:,} left out: {labels}")
    if summary["reused"]:
        lines.append(f"unchanged and reused: {', '.join(summary['reused'])}")
    if summary["start_accuracy"] is not None:
        start, own = summary["start_accuracy"], summary["accuracy"]
        lines.append(f"training began with a model of {start:.1%} accuracy on these images, and ended with {own:.1%}")
    if summary["blessed"]:
        lines += [
            f"the gate: {'; '.join(summary['decision']['reasons'])}",
            f"blessed and published: {summary['model_path']}",
            f"score images:  marco predict --model {summary['model_path']} --output scores.csv FOLDER",
        ]
    else:
        lines.append(f"not blessed, nothing published: {'; '.join(summary['failures'])}")
    if "leave_out" in summary:
        lines.append(f"home and away: {output.resolve() / leave_out.HTML_FILE}")
    shared = summary["tracking_uri"] == mlflow_store.default_store()
    return [
        *lines,
        f"the report:    {summary['report_path']}",
        f"compare runs:  marco ui{'' if shared else f' --tracking {output}'}",
        f"everything:    {output / 'summary.json'}",
    ]
