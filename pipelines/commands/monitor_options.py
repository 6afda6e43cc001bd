"""What the commands of `marco monitor` have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

Imagers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--imager",
        help="NAME of the imager of every image, or PATTERN=NAME of those whose path below PATH fits; repeatable.",
    ),
]
Institution = Annotated[
    str, typer.Option(help="Of image files: its file names tell the imager (docs/data.md). Shards name theirs.")
]
Beam = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--beam", help="An option of Beam, such as --beam=--runner=DataflowRunner; repeatable."),
]
Staging = Annotated[
    str, typer.Option(help="Where Beam's workers put their rows; a URI where they run elsewhere. Default: in OUTPUT.")
]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
]


def naming(imagers: Sequence[str] | None, institution: str) -> Any:
    """Returns the rules that name imagers."""
    from components.monitoring.naming import Naming, parse_told

    return Naming(parse_told(imagers or ()), institution)


def pipeline(options: Sequence[str] | None) -> Callable[[], Any] | None:
    """Returns what makes the Beam pipeline; None is this project's local one."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    if not options:
        return None
    import apache_beam as beam

    return lambda: beam.Pipeline(argv=list(options))


def staging(told: str, output: Path) -> str:
    """Returns where the workers' rows go for a while."""
    return told or str(output.resolve().with_name(f".{output.name}.rows"))
