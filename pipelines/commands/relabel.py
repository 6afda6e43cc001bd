"""`marco relabel`: have experts relabel the images that disagree most with a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import marco_model
from marco_data import progress, shards
from marco_data.relabelling import merging, scoring, sheets as exporting
from pipelines.commands import options

app = typer.Typer()
_MEGABYTE = 1_000_000


@app.command()
def export(
    data: Annotated[
        list[str], typer.Option(help="Shards, or what `marco data ingest` wrote; local or gs://. May be repeated.")
    ],
    output: Annotated[
        Path,
        typer.Option(callback=options.new_folder, help="New folder: raters/ for the experts, key.csv not for them."),
    ],
    model: options.Model = None,
    share: Annotated[float, typer.Option(help="Share of each split's images to export.")] = 0.05,
    folds: Annotated[
        int,
        typer.Option(min=0, help="Judge each image by a model of the features, fitted without its fold; 0: by scores."),
    ] = 0,
    raters: Annotated[
        list[str] | None, typer.Option(help="Who gets a sheet; may be repeated, or names joined by commas.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the order in which images are shown.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
) -> None:
    """Export the images of each split whose labels a classifier believes least, for experts to relabel.

    Images are ranked by 1 minus the calibrated probability of their label. OUTPUT/raters has them without labels, a
    page to label them with the keyboard, and one sheet per rater; OUTPUT/key.csv keeps their old labels. With --folds 5
    the model gives only features: use it if the model was trained on these labels, or on other images. The exit
    status is 1 if some record could not be scored; the others are exported all the same.

    Example: marco relabel export --model runs/mine/models --data shards --output look --folds 5 --raters anna,ben
    """
    exporting.check_share(share)
    if folds:
        scoring.check_folds(folds)
    names = [name.strip() for value in raters or ["expert"] for name in value.split(",") if name.strip()]
    exporting.check_raters(names)
    files = shards.find_shards(data)
    classifier = marco_model.open_classifier(options.model_directory(model, "scoring with"))
    skipped: list[tuple[str, int, str]] = []
    megabytes = max(sum(file.size for file in files) // _MEGABYTE, 1)
    with progress.progress("scoring", megabytes, unit="MB") as advance:
        scored = scoring.score_records(
            classifier,
            files,
            folds=folds,
            batch_size=batch_size,
            on_problem=lambda *problem: skipped.append(problem),
            on_bytes=_by_megabyte(advance, megabytes),
        )
    chosen = exporting.most_disagreeing(scored, share)
    about = {"model": classifier.name, "data": data, "share": share, "folds": folds, "seed": seed, "raters": names}
    summary = exporting.write_export(output, files, scored, chosen, names, seed, skipped, about)
    _print_summary(summary, output)
    if skipped:
        raise typer.Exit(1)


def _by_megabyte(advance: Callable[..., None], total: int) -> Callable[[int], None]:
    """Returns a callback for bytes that shows whole megabytes, at most `total`: images are nearly all of a shard."""
    seen = shown = 0

    def more(count: int) -> None:
        nonlocal seen, shown
        seen += count
        until = min(seen // _MEGABYTE, total)
        if until > shown:
            advance(until - shown)
            shown = until

    return more


def _print_summary(summary: dict[str, Any], output: Path) -> None:
    for split, counts in summary["splits"].items():
        if not counts["exported"]:
            options.echo(f"{split}: none of {counts['scored']} images, because each is in another split too")
            continue
        options.echo(
            f"{split}: {counts['exported']} of {counts['scored']} images, disagreement from "
            f"{counts['least_disagreement']:.3f} up, {counts['predicted_otherwise']} predicted otherwise"
        )
    options.echo(f"for the experts: {output / 'raters'} (open index.html); not for them: {output / 'key.csv'}")
    options.echo(f"then: marco relabel merge SHEET… --key {output / 'key.csv'} --output overlay.csv")
    if summary["skipped"]:
        options.echo(f"{summary['skipped']} records could not be scored, see {output / 'skipped.csv'}", err=True)


@app.command()
def merge(
    sheets: Annotated[list[str], typer.Argument(help="Filled-in sheets, one or more per rater.", metavar="SHEET…")],
    output: Annotated[
        Path,
        typer.Option(
            callback=options.output_file, help="CSV to write; the report and the lists of what is left go beside it."
        ),
    ],
    key: Annotated[str, typer.Option(help="The key.csv of the export.")] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(help="For sheets that a plate page saved: the shards that have its images. May be repeated."),
    ] = None,
    rule: Annotated[
        str, typer.Option(help="`majority`, `unanimous`, or `first`: of the first sheet that has an answer.")
    ] = "majority",
    date: Annotated[
        str, typer.Option(help="Date of answers without one; else the day of their sheet's last change.")
    ] = "",
    earlier: Annotated[
        str | None, typer.Option(help="An overlay of an earlier round, whose answers stay where this one has none.")
    ] = None,
) -> None:
    """Combine experts' answers into an overlay, which `marco run --overlay` and `marco data ingest --overlay` apply.

    Where the rule settles nothing an image stays as it was, and is listed in OUTPUT's .undecided.csv. Answers that
    cannot be used stop the merge, each named by file and line. Sheets that plate pages saved take --data, the shards
    that have their images, instead of --key; images are recognized by their content, wherever they lie.

    Example: marco relabel merge anna.csv ben.csv --key look/key.csv --output overlay.csv
    """
    report, answers = merging.merge_sheets(
        sheets, key, output, data=data or (), rule=rule, date=date, earlier=earlier or ""
    )
    options.echo("\n".join(merging.report_lines(report)))
    options.echo(f"overlay: {output}    report: {output.with_suffix('.report.html')}")
    if answers.repeated:
        more = len(answers.repeated) - 1
        options.echo(answers.repeated[0] + (f"; {more} more repeat an answer" if more else ""), err=True)
    if answers.unanswered:
        first, more = answers.unanswered[0][0], len(answers.unanswered) - 1
        options.echo(
            f"{more + 1} answers are empty ({first}{f' and {more} more' if more else ''}), see "
            f"{output.with_suffix('.unanswered.csv')}",
            err=True,
        )
    if answers.unmatched:
        options.echo(
            f"{len(answers.unmatched)} images are in no record, see {output.with_suffix('.unmatched.csv')}; "
            "marco data import --csv reads it",
            err=True,
        )
    if report["undecided"]:
        options.echo(f"{report['undecided']} undecided, see {output.with_suffix('.undecided.csv')}", err=True)
