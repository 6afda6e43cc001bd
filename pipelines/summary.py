"""The results of a local run: `summary.json`, the table by institution and imager, and the closing lines."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb

from components.evaluations import ALL, OVERALL, SLICES, slice_metrics
from components.gate import read_decision
from components.published_models import published_path
from components.report.page import HTML_FILE as REPORT_FILE


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a run: whether its outputs were reused, its seconds, and the URI of each output by channel name."""

    name: str
    reused: bool
    seconds: float
    outputs: dict[str, str]


def last_run(database: pathlib.Path, pipeline: str) -> dict[str, Step]:
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


def _step(store: metadata_store.MetadataStore, execution: pb.Execution, pipeline: str) -> Step:
    nodes = [context.name for context in store.get_contexts_by_execution(execution.id) if context.type == "node"]
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    return Step(
        name=nodes[0].removeprefix(f"{pipeline}."),
        reused=execution.last_known_state == pb.Execution.CACHED,
        seconds=milliseconds / 1_000,
        outputs=_outputs(store, execution.id),
    )


def _outputs(store: metadata_store.MetadataStore, execution: int) -> dict[str, str]:
    produced = [e for e in store.get_events_by_execution_ids([execution]) if e.type == pb.Event.OUTPUT]
    uris = {artifact.id: artifact.uri for artifact in store.get_artifacts_by_id([e.artifact_id for e in produced])}
    return {event.path.steps[0].key: uris[event.artifact_id] for event in produced}


def summarize(steps: dict[str, Step], output: pathlib.Path) -> dict[str, Any]:
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
        "report_path": str(pathlib.Path(steps["Report"].outputs["report"]) / REPORT_FILE),
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
