"""The options that several commands share, each defined once, and groups of options that a command takes as one value.

@grouped
X the option --endpoint and one option per field of `PresetOptions`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marco_model.errors import InputError

if TYPE_CHECKING:
    from components.vertex.options import Vertex

ImagePaths = Annotated[
    list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
]
Model = Annotated[
    str | None,
    typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
]
Preset = Annotated[str, typer.Option(help="A preset's name, or a .yaml file of your own.")]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of the preset, such as recipe.steps=500. May be repeated."),
]


class Target(str, Enum):
    """Where a package runs."""

    kubeflow = "kubeflow"
    vertex = "vertex"


@dataclasses.dataclass(frozen=True)
class VertexOptions:
    """A project and region of Vertex AI."""

    project: Annotated[str | None, typer.Option(help="Project of Google Cloud; by default the preset's.")] = None
    location: Annotated[str | None, typer.Option(help="Region, such as europe-west4; by default the preset's.")] = None
    api: Annotated[
        str | None, typer.Option(help="Another address of Vertex AI, such as a Private Service Connect endpoint's.")
    ] = None

    def place(self) -> "Vertex":
        """Returns the project and region; raises `InputError` if either is missing."""
        from components import settings
        from components.vertex.options import Vertex

        if not (self.project and self.location):
            raise InputError(f"--project is {self.project} and --location {self.location}; Vertex AI needs both")
        values = dataclasses.asdict(self) | {"api": self.api or ""}
        return settings.parse(Vertex, values, "the options of Vertex AI", "vertex")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with an option for each field of the dataclasses among its parameters."""
    options: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if not dataclasses.is_dataclass(parameter.annotation):
            options.append(parameter)
            continue
        groups[parameter.name] = parameter.annotation
        for field in dataclasses.fields(parameter.annotation):
            options.append(parameter.replace(name=field.name, default=field.default, annotation=field.type))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    signature = inspect.Signature([option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options])
    # Typer reads both.
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
