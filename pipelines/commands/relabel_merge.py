"""`marco relabel merge`: the experts' sheets become an overlay, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def merge(
    sheets: Annotated[list[str], typer.Argument(help="Filled-in sheets, one or more a rater.", metavar="SHEET…")],
    key: Annotated[str, typer.Option(help="The key.csv of the export.")],
    output: Annotated[Path, typer.Option(help="CSV to write; the report and what is left over go beside it.")],
    rule: Annotated[
        str, typer.Option(help="`majority`, `unanimous`, or `first`: of the first sheet that has an answer.")
    ] = "majority",
    date: Annotated[str, typer.Option(help="Date of answers without one, YYYY-MM-DD.")] = "",
    earlier: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="An overlay of an earlier round, whose answers stay where this one has none."),
    ] = None,
) -> None:
    """Combine experts' answers into an overlay, which `marco run --overlay` and `marco data ingest --overlay` apply.

    Where the rule settles nothing an image stays as it was, and is listed in OUTPUT's .undecided.csv. Answers that
    cannot be used stop the merge, each named by file and line.

    Example: marco relabel merge anna.csv ben.csv --key look/key.csv --output overlay.csv
    """
    from marco_data.relabelling.merge_sheets import merge_sheets
    from marco_data.relabelling.report import lines

    told, answers = merge_sheets(sheets, key, output, rule=rule, date=date, earlier=earlier or "")
    typer.echo("\n".join(lines(told)))
    typer.echo(f"overlay: {output}    report: {output.with_suffix('.report.html')}")
    for line in answers.repeated:
        typer.echo(line, err=True)
    if answers.unanswered:
        first, more = answers.unanswered[0][0], len(answers.unanswered) - 1
        typer.echo(
            f"{more + 1} answers are empty ({first}{f' and {more} more' if more else ''}), see "
            f"{output.with_suffix('.unanswered.csv')}",
            err=True,
        )
    if told["undecided"]:
        typer.echo(f"{told['undecided']} undecided, see {output.with_suffix('.undecided.csv')}", err=True)
