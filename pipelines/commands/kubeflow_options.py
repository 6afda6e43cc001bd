"""Options that `marco submit` and `marco schedule` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from marco_model.errors import InputError
from pipelines.commands.target import Target

Package = Annotated[Optional[Path], typer.Argument(help="The .yaml file that marco compile wrote.")]  # noqa: UP045
TargetOption = Annotated[Target, typer.Option(help="Where it runs.")]
Host = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        envvar="KF_PIPELINES_ENDPOINT",
        help="URL of Kubeflow Pipelines; by default that of the pod this runs in, or of kubectl's context.",
    ),
]
Namespace = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Namespace of the runs, where an installation has several users."),
]
TokenFile = Annotated[Optional[Path], typer.Option(help="A file with a bearer token; it may be renewed on the way.")]  # noqa: UP045
Ca = Annotated[Optional[Path], typer.Option(help="A file with the certificates to trust.")]  # noqa: UP045
Experiment = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="An experiment of Kubeflow; by default marco, which is made where it is missing."),
]
CreateExperiment = Annotated[bool, typer.Option("--create-experiment", help="Make the experiment if it is missing.")]
Data = Annotated[Optional[str], typer.Option(help="Shards of scored images; by default the package's.")]  # noqa: UP045
Steps = Annotated[Optional[int], typer.Option(min=1, help="Steps of training; by default the preset's.")]  # noqa: UP045
RunLabel = Annotated[Optional[str], typer.Option(help="A label, kept as the tag run_label of the run in MLflow.")]  # noqa: UP045
Parameter = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Any parameter of the package, as name=value. May be repeated."),
]
PipelineRoot = Annotated[Optional[str], typer.Option(help="Where artifacts go; by default as compiled.")]  # noqa: UP045
ServiceAccount = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Service account of the steps, such as marco-pipeline; by default Kubeflow's own."),
]


def parameters(data: str | None, steps: int | None, run_label: str | None, others: list[str] | None) -> dict[str, str]:
    """Returns the parameters that were given, by name; raises `InputError` for one without a `=`."""
    given = {"data": data, "steps": str(steps) if steps else None, "run_label": run_label}
    found = {name: value for name, value in given.items() if value is not None}
    for other in others or []:
        name, equals, value = other.partition("=")
        if not equals or not name:
            raise InputError(f"--parameter {other!r} has no '='; write it as name=value")
        found[name] = value
    return found


def required(package: Path | None) -> Path:
    """Returns the package; raises `InputError` where none was named."""
    if package is None:
        raise InputError("no package is named; give the .yaml file that marco compile wrote")
    return package
