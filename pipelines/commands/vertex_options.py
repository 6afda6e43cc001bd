"""Options that the commands of `marco deploy` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from components.vertex.api import Api
    from components.vertex.options import Vertex
    from pipelines.configuration import Deploying

Project = Annotated[Optional[str], typer.Option(help="Project of Google Cloud; by default the preset's.")]  # noqa: UP045
Location = Annotated[Optional[str], typer.Option(help="Region, such as europe-west4; by default the preset's.")]  # noqa: UP045
Name = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--endpoint", help="The endpoint's display name; by default the preset's."),
]
Preset = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A preset's name or .yaml file, whose sections vertex and endpoint are taken."),
]
Change = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Change one value, such as endpoint.keep_previous=true. May be repeated."),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--api", help="Another address of Vertex AI, such as a Private Service Connect endpoint's."),
]


def settings(
    preset: str | None,
    project: str | None,
    location: str | None,
    api: str | None,
    change: list[str] | None,
    **endpoint: Any,
) -> Deploying:
    """Returns the sections `vertex` and `endpoint` of a preset with what the command line gives."""
    from pipelines.configuration import load_deploying

    vertex = {"project": project, "location": location, "api": api}
    return load_deploying(preset, {"vertex": vertex, "endpoint": endpoint}, change or [])


def connect(found: Deploying) -> Api:
    """Returns the way to Vertex AI."""
    from components.vertex.api import Api

    return Api(found.vertex)


def place(project: str | None, location: str | None, api: str | None) -> Vertex:
    """Returns where in Google Cloud; raises `InputError` where that is not said."""
    from components.vertex.options import Vertex
    from marco_model.errors import InputError

    if not (project and location):
        raise InputError(f"--project is {project} and --location {location}; Vertex AI needs both")
    try:
        return Vertex(project, location, api=api or "")
    except ValueError as error:
        raise InputError(str(error)) from error


def only_vertex(**given: str | None) -> None:
    """Raises `InputError` for options that mean something to Kubeflow Pipelines alone."""
    from marco_model.errors import InputError

    if named := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InputError(f"{', '.join(named)}: Vertex AI has none; leave it out, or give --target kubeflow")
