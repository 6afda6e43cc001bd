"""`marco predict`: scores for folders or files of drop images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands import inputs


def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="CSV to write; unreadable files go beside it, into *.errors.csv.")],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="HTML file to write too: plate maps, scores over time, ranked images (docs/plates.md)."),
    ] = None,
    explain: Annotated[
        int, typer.Option(min=0, help="In the report: overlays of what speaks for crystals, for the N best images.")
    ] = 0,
    thumbnail_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=64, max=1024, help="In the report: pixels of an image's longer side. Without it: by number."),
    ] = None,
    crystal_class: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="In the report: the class to rank by; may be repeated. Without it: all named after crystals."
        ),
    ] = None,
) -> None:
    """Score drop images into a CSV: a row an image, a column a class.

    Folders are searched with their subfolders. Plate and well are filled in where the file name tells them. The exit
    status is 1 if some file could not be scored; the others are scored all the same.

    Example: marco predict --model models/released --output scores.csv --report plate.html plates/03c3
    """
    from pipelines.prediction import predict as predict_files
    from pipelines.result_tables import errors_path

    _check_report(report, output, bool(explain or thumbnail_size or crystal_class))
    files = inputs.images(paths)
    found = inputs.model_directory(model, "scoring with")
    from marco_model.load import load

    classifier = load(found)
    if report is None:
        outcome = predict_files(classifier, files, output, batch_size)
    else:
        from pipelines.plate_report.making import Options, predict_with_report

        options = Options(_explain_command(model), explain, thumbnail_size, crystal_class or [])
        outcome = predict_with_report(classifier, files, output, report, options, batch_size)
    counts = ", ".join(f"{count} {name}" for name, count in outcome.by_class.items())
    typer.echo(f"{output}: {sum(outcome.by_class.values())} images scored: {counts}")
    if report is not None:
        typer.echo(f"{report}: {report.stat().st_size / 1e6:.1f} MB, opens in a browser")
    if outcome.failed:
        typer.echo(f"{outcome.failed} of {len(files)} files could not be scored, see {errors_path(output)}", err=True)
        raise typer.Exit(1)


def _check_report(report: Path | None, output: Path, about_report: bool) -> None:
    """Raises `InputError`, before anything is scored, for a report that could not be written."""
    from marco_model.errors import InputError

    if report is None:
        if about_report:
            raise InputError("--explain, --thumbnail-size and --crystal-class are of a report; give --report FILE too")
    elif report.is_dir():
        raise InputError(f"--report {report} is a folder; give the name of an HTML file")
    elif report.resolve() == output.resolve():
        raise InputError(f"--report and --output are both {report}; give two names")


def _explain_command(model: str | None) -> list[str]:
    """The command by which a report says how one of its images is explained, without class and path."""
    return ["marco", "explain", *(["--model", model] if model else []), "--output", "explained"]
