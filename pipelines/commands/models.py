"""`marco models`: the versions in MLflow's registry, and which of them serves."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box, console, table, text

from marco_model.errors import InputError

Tracking = Annotated[str, typer.Option(help="A run's folder, or MLflow's URI.")]
Name = Annotated[str, typer.Option(help="The registered model.")]
Destination = Annotated[
    str | None,
    typer.Option(help="Where versions are published: a folder or gs:// URI; by default where the champion is."),
]


def list_(tracking: Tracking = "runs/local", name: Name = "marco") -> None:
    """List the versions of a model, newest first: accuracy, recall of Crystals, what they come from, where they serve.

    Example: marco models list --tracking runs/local
    """
    from components import mlflow_registry

    title = text.Text(f"Versions of {name}", style="table.title")
    shown = table.Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("version", "alias", "accuracy", "Crystals", "created", "data", "commit"):
        shown.add_column(column, no_wrap=True)
    versions = mlflow_registry.list_versions(mlflow_registry.tracking_uri(tracking), name)
    for version in versions:
        shares = ("" if share is None else f"{share:.2%}" for share in (version.accuracy, version.recall))
        created = version.created.astimezone().strftime("%Y-%m-%d")
        aliases = text.Text(", ".join(version.aliases))
        shown.add_row(version.version, aliases, *shares, created, version.data[:8], version.commit[:8])
    console.Console().print(shown)
    # Below the table, since no terminal is wide enough for places.
    for version in versions:
        if version.place:
            typer.echo(f"version {version.version} is published at {version.place}")


def promote(
    version: Annotated[str, typer.Argument(help="Number of the version.")],
    tracking: Tracking = "runs/local",
    name: Name = "marco",
    destination: Destination = None,
) -> None:
    """Make a version the champion: publish it, unless it is the newest there already, and move the alias.

    Example: marco models promote 3 --tracking runs/local
    """
    from components import mlflow_registry

    done = mlflow_registry.promote(mlflow_registry.tracking_uri(tracking), name, version, destination)
    before = f", before it version {done.before}" if done.before not in ("", done.version) else ""
    typer.echo(f"Version {done.version} of {name} is champion{before}; {_place(done.place, done.unchanged)}.")


def rollback(tracking: Tracking = "runs/local", name: Name = "marco", destination: Destination = None) -> None:
    """Restore the previous champion: it is published under a new number, which servers pick up.

    Each repetition goes back one champion further.

    Example: marco models rollback --tracking runs/local
    """
    from components import mlflow_registry

    done = mlflow_registry.rollback(mlflow_registry.tracking_uri(tracking), name, destination)
    typer.echo(
        f"Back from version {done.before} to version {done.version} of {name}; {_place(done.place, done.unchanged)}."
    )


def _place(place: str, unchanged: bool) -> str:
    return f"it was the newest already: {place}" if unchanged else f"published: {place}"


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Two or more of: a run's folder, an MLflow run id, a version, champion, challenger."),
    ],
    tracking: Tracking = "runs/local",
    name: Name = "marco",
    recall_class: Annotated[
        str | None,
        typer.Option(help="The class whose recall is compared beside accuracy; Crystals where there is such a class."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    csv: Annotated[Path | None, typer.Option(help="A CSV to write, one line per slice and run.")] = None,
    json: Annotated[Path | None, typer.Option(help="The same as JSON.")] = None,
) -> None:
    """Compare runs slice by slice: accuracy, recall, and the differences to the first with intervals.

    Where two runs predicted the same images, they are compared image by image, which finds much smaller differences.

    Example: marco compare runs/local runs/other --csv comparison.csv
    """
    from pipelines import run_comparison

    if len(runs) < 2:
        raise InputError(f"{', '.join(runs)} alone cannot be compared; give two runs or more")
    judged = [run_comparison.find_judged(run, tracking, name) for run in runs]
    rows = run_comparison.compare(judged, recall_class, confidence)
    terminal = console.Console(markup=False, emoji=False)
    for metric in dict.fromkeys(row.metric for row in rows):
        terminal.print(run_comparison.table(rows, metric))
    terminal.print("\n".join(run_comparison.describe(judged, rows, confidence)), soft_wrap=True, highlight=False)
    if csv:
        run_comparison.write_csv(rows, csv)
    if json:
        run_comparison.write_json(rows, confidence, json)
