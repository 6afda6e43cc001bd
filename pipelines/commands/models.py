"""`marco models`: the versions in MLflow's registry, and which of them serves."""

from typing import Annotated

import typer
from rich import box, table, text

from components import mlflow_registry, mlflow_store
from pipelines.commands import options
from pipelines.commands.options import ModelName, Tracking

app = typer.Typer()
Destination = Annotated[
    str | None,
    typer.Option(help="Where versions are published: a folder or gs:// URI; by default where the champion is."),
]


@app.command("list")
def list_(tracking: Tracking = "", name: ModelName = None) -> None:
    """List the versions of a model, newest first: accuracy, recall of Crystals, what they come from, where they serve.

    Example: marco models list
    """
    store = mlflow_store.find_store(tracking)
    name = mlflow_registry.choose_model(store, name)
    title = text.Text(f"Versions of {name}", style="table.title")
    shown = table.Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("version", "alias", "accuracy", "Crystals", "created", "data", "commit"):
        shown.add_column(column, no_wrap=True)
    versions = mlflow_registry.list_versions(store, name)
    for version in versions:
        shares = ("" if share is None else f"{share:.2%}" for share in (version.accuracy, version.recall))
        created = version.created.astimezone().strftime("%Y-%m-%d")
        aliases = text.Text(", ".join(version.aliases))
        shown.add_row(version.version, aliases, *shares, created, version.data[:8], version.commit[:8])
    options.Terminal().print(shown)
    # Below the table, since no terminal is wide enough for places.
    for version in versions:
        if version.place:
            options.echo(f"version {version.version} is published at {version.place}")


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Number of the version.")],
    tracking: Tracking = "",
    name: ModelName = None,
    destination: Destination = None,
) -> None:
    """Make a version the champion: publish it, unless it is the newest there already, and move the alias.

    Example: marco models promote 3
    """
    store = mlflow_store.find_store(tracking)
    name = mlflow_registry.choose_model(store, name)
    done = mlflow_registry.promote(store, name, version, destination)
    before = f", before it version {done.before}" if done.before not in ("", done.version) else ""
    options.echo(f"Version {done.version} of {name} is champion{before}; {_place(done.place, done.unchanged)}.")


@app.command()
def rollback(tracking: Tracking = "", name: ModelName = None, destination: Destination = None) -> None:
    """Restore the previous champion: it is published under a new number, which servers pick up.

    Each repetition goes back one champion further.

    Example: marco models rollback
    """
    store = mlflow_store.find_store(tracking)
    name = mlflow_registry.choose_model(store, name)
    done = mlflow_registry.rollback(store, name, destination)
    options.echo(
        f"Back from version {done.before} to version {done.version} of {name}; {_place(done.place, done.unchanged)}."
    )


def _place(place: str, unchanged: bool) -> str:
    return f"it was the newest already: {place}" if unchanged else f"published: {place}"
