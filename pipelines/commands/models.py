"""`marco models`: the versions in MLflow's registry, and which of them serves."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

Tracking = Annotated[str, typer.Option(help="A run's folder, or MLflow's URI.")]
Name = Annotated[str, typer.Option(help="The registered model.")]
Destination = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Where versions are published: a folder or gs:// URI; by default where the champion is."),
]


def list_(tracking: Tracking = "runs/local", name: Name = "marco") -> None:
    """List the versions of a model, newest first: accuracy, recall of Crystals, what they come from, where they serve.

    Example: marco models list --tracking runs/local
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from components.mlflow_tracking import versions

    title = Text(f"Versions of {name}", style="table.title")
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("version", "alias", "accuracy", "Crystals", "created", "data", "commit"):
        table.add_column(column, no_wrap=True)
    listed = versions.listed(versions.store(tracking), name)
    for one in listed:
        shares = ("" if share is None else f"{share:.2%}" for share in (one.accuracy, one.recall))
        created = one.created.astimezone().strftime("%Y-%m-%d")
        table.add_row(one.version, Text(", ".join(one.aliases)), *shares, created, one.data[:8], one.commit[:8])
    Console().print(table)
    # Below it, since no terminal is wide enough for places.
    for one in listed:
        if one.place:
            typer.echo(f"version {one.version} is published at {one.place}")


def promote(
    version: Annotated[str, typer.Argument(help="Number of the version.")],
    tracking: Tracking = "runs/local",
    name: Name = "marco",
    destination: Destination = None,
) -> None:
    """Make a version the champion: publish it, unless it is the newest there already, and move the alias.

    Example: marco models promote 3 --tracking runs/local
    """
    from components.mlflow_tracking import versions

    done = versions.promote(versions.store(tracking), name, version, destination)
    before = f", before it version {done.before}" if done.before not in ("", done.version) else ""
    typer.echo(f"Version {done.version} of {name} is champion{before}; {_place(done.place, done.there)}.")


def rollback(tracking: Tracking = "runs/local", name: Name = "marco", destination: Destination = None) -> None:
    """Go back to the champion before: it is published under a new number, which is what servers take.

    Done again, it goes back one further, until there is none.

    Example: marco models rollback --tracking runs/local
    """
    from components.mlflow_tracking import versions

    done = versions.rollback(versions.store(tracking), name, destination)
    typer.echo(
        f"Back from version {done.before} to version {done.version} of {name}; {_place(done.place, done.there)}."
    )


def _place(place: str, there: bool) -> str:
    return f"it was the newest already: {place}" if there else f"published: {place}"
