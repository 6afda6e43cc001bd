"""`marco data ingest`: ExampleGen alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer


def ingest(
    paths: Annotated[
        list[str], typer.Argument(help="Shards: files, folders or globs, local or gs://.", metavar="PATH")
    ],
    output: Annotated[Path, typer.Option(help="New folder for examples, quarantine and summary.json.")],
    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Give up if a larger share of the records fails a check.")
    ] = 1.0,
    split_by: Annotated[
        str, typer.Option(help="`shard`: by the shards' names; `hash`: by plate or image id.")
    ] = "shard",
    eval_share: Annotated[float, typer.Option(help="Share of the evaluation set when split by hash.")] = 0.1,
    max_pixels: Annotated[int, typer.Option(min=1, help="Do not decode images of more pixels.")] = 50_000_000,
    labels: Annotated[
        str, typer.Option(help="Classes to write: four, hwmri10, raw, or a .yaml file with a section `labels`.")
    ] = "four",
    overlay: Annotated[
        str, typer.Option(help="Labels that experts gave some images, which `marco relabel merge` wrote.")
    ] = "",
) -> None:
    """Check every record of MARCO shards and write TFX Examples, setting aside what fails.

    OUTPUT gets examples/Split-train and Split-eval, quarantine/ with the records that failed, quarantine.csv with the
    reason for each, and summary.json with the counts. `marco data inspect OUTPUT` explains them.

    Example: marco data ingest --output runs/checked drops
    """
    from marco_data.shards import find_shards

    # Found before Beam and TensorFlow are imported, so that a mistyped path is told at once.
    find_shards(paths)
    from pipelines.configuration import load_labels
    from pipelines.labelling import label_scheme

    scheme = label_scheme(load_labels(labels), paths[0])
    from components.example_gen.options import IngestOptions
    from components.example_gen.standalone import ingest_to_folder

    options = IngestOptions(
        split_by=split_by,
        eval_share=eval_share,
        max_quarantined=max_quarantined,
        max_pixels=max_pixels,
        label_scheme=scheme,
        overlay=overlay,
    )
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)  # What it logs as a traceback is raised too.
    summary = ingest_to_folder(paths, output, options)
    splits = ", ".join(f"{split} {count}" for split, count in summary["splits"].items())
    typer.echo(f"{summary['read']} records read, {summary['written']} written ({splits})")
    if summary["left_out"]:
        typer.echo(f"{summary['left_out']} left out:")
    for label, count in summary["left_out_labels"].items():
        typer.echo(f"  {label} {count}")
    if overlay:
        _tell_of_overlay(summary, output)
    typer.echo(f"{summary['quarantined']} quarantined" + (":" if summary["reasons"] else ""))
    for reason, count in summary["reasons"].items():
        typer.echo(f"  {reason} {count}")
    if summary["empty_shards"]:
        typer.echo(f"empty shards: {', '.join(summary['empty_shards'])}")
    if not summary["sources"]:
        typer.echo("no sources.csv found: institutions are named by number, imagers are unknown", err=True)


def _tell_of_overlay(summary: dict[str, Any], output: Path) -> None:
    told = summary["relabelled"]
    typer.echo(f"{told['total']} relabelled, {told['confirmed']} confirmed by the overlay")
    for old, new in told["by_class"].items():
        for name, count in new.items():
            typer.echo(f"  {old} -> {name} {count}")
    if summary["overlay_unused"] or summary["overlay_not_written"]:
        typer.echo(
            f"answers without use: {len(summary['overlay_unused'])} of ids that no record has, "
            f"{len(summary['overlay_not_written'])} of records that were quarantined or left out; see "
            f"{output / 'quarantine' / 'overlay.csv'}"
        )
