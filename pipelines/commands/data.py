"""`marco data` makes, checks and describes sets of scored images; `marco relabel` has experts relabel them."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import console, table

import marco_model
from components import settings
from marco_data import contract, importing, inspection, progress, shards
from marco_model import InputError, store
from pipelines.commands import options

_MEGABYTE = 1_000_000


def import_(
    output: Annotated[Path, typer.Option(help="New folder for the shards.")],
    folder: Annotated[
        Path | None, typer.Argument(help="A folder a class below it; with --csv, the folder of the files listed.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Labels: filename,label or terf's header; paths are relative to it.")
    ] = None,
    institution: Annotated[str, typer.Option(help="Where the images come from; metrics are sliced by it.")] = "",
    eval_share: Annotated[float, typer.Option(help="Share of plates, or images, held out as test shards.")] = 0.2,
    shard_images: Annotated[int, typer.Option(min=1, help="Most images per shard.")] = 1024,
    raw_labels: Annotated[
        bool,
        typer.Option("--raw-labels", help="The labels are your own names; a label scheme maps them to classes."),
    ] = False,
) -> None:
    """Make MARCO shards of JPEG, PNG, TIFF and BMP images with labels from a CSV, or from one folder per class.

    Classes are Clear, Crystals, Other and Precipitate, unless --raw-labels takes labels of your own (docs/labels.md).
    Files that cannot be read are listed in import.errors.csv, the rest is imported, and the exit status is 1.

    Example: marco data import --output drops --csv labels.csv --institution CSIRO
    """
    if csv is None and folder is not None and folder.suffix.lower() == ".csv":
        csv, folder = folder, None
    if csv is not None:
        labels = importing.from_csv(csv, folder, institution, raw_labels)
    elif folder is not None:
        labels = importing.from_folder(folder, institution, raw_labels)
    else:
        raise InputError("nothing to import; give a folder that has a folder for each class, or --csv labels.csv")
    done = importing.import_images(labels, output, eval_share=eval_share, shard_images=shard_images)
    counts = ", ".join(f"{split} {count}" for split, count in done.written.items())
    typer.echo(f"{sum(done.written.values())} images in {output} ({counts})")
    if not done.plates_kept:
        typer.echo("the images are of too few plates to hold out whole ones: drawn image by image", err=True)
    if done.errors:
        for path, reason in done.errors[:5]:
            typer.echo(f"left out: {path}: {reason}", err=True)
        typer.echo(f"{len(done.errors)} left out in all, listed in {output / importing.ERRORS_FILE}", err=True)
        raise typer.Exit(1)


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Which records are written, into which split, by the names of `components.settings.IngestOptions`."""

    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Give up if a larger share of the records fails a check.")
    ] = 1.0
    split_by: Annotated[str, typer.Option(help="`shard`: by the shards' names; `hash`: by plate or image id.")] = (
        "shard"
    )
    eval_share: Annotated[float, typer.Option(help="Share of the evaluation set when split by hash.")] = 0.1
    max_pixels: Annotated[int, typer.Option(min=1, help="Do not decode images of more pixels.")] = 50_000_000
    overlay: Annotated[
        str, typer.Option(help="Labels that experts gave some images, which `marco relabel merge` wrote.")
    ] = ""


@options.grouped
def ingest(
    *,
    paths: Annotated[
        list[str], typer.Argument(help="Shards: files, folders or globs, local or gs://.", metavar="PATH")
    ],
    output: Annotated[Path, typer.Option(help="New folder for examples, quarantine and summary.json.")],
    labels: Annotated[
        str, typer.Option(help="Classes to write: four, hwmri10, raw, or a .yaml file with a section `labels`.")
    ] = "four",
    checks: CheckOptions,
) -> None:
    """Check every record of MARCO shards and write TFX Examples, setting aside what fails.

    OUTPUT gets examples/Split-train and Split-eval, quarantine/ with the records that failed, quarantine.csv with the
    reason for each, and summary.json with the counts. `marco data inspect OUTPUT` explains them.

    Example: marco data ingest --output runs/checked drops
    """
    # Before Beam and TensorFlow are imported, so that a mistyped path fails at once.
    shards.find_shards(paths)
    from components.example_gen import ingest as checking
    from pipelines import configuration

    scheme = configuration.label_scheme(configuration.load_labels(labels), paths[0])
    values = {**vars(checks), "label_scheme": scheme}
    parsed = settings.parse(settings.IngestOptions, values, "the options of marco data ingest")
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)  # What it logs as a traceback is raised too.
    summary = checking.ingest_to_folder(paths, output, parsed)
    splits = ", ".join(f"{split} {count}" for split, count in summary["splits"].items())
    typer.echo(f"{summary['read']} records read, {summary['written']} written ({splits})")
    if summary["left_out"]:
        typer.echo(f"{summary['left_out']} left out:")
    for label, count in summary["left_out_labels"].items():
        typer.echo(f"  {label} {count}")
    if checks.overlay:
        _print_overlay(summary, output)
    typer.echo(f"{summary['quarantined']} quarantined" + (":" if summary["reasons"] else ""))
    for reason, count in summary["reasons"].items():
        typer.echo(f"  {reason} {count}")
    if summary["empty_shards"]:
        typer.echo(f"empty shards: {', '.join(summary['empty_shards'])}")
    if not summary["sources"]:
        typer.echo("no sources.csv found: institutions are named by number, imagers are unknown", err=True)


def _print_overlay(summary: dict[str, Any], output: Path) -> None:
    relabelled = summary["relabelled"]
    typer.echo(f"{relabelled['total']} relabelled, {relabelled['confirmed']} confirmed by the overlay")
    for old, new in relabelled["by_class"].items():
        for name, count in new.items():
            typer.echo(f"  {old} -> {name} {count}")
    if summary["overlay_unused"] or summary["overlay_not_written"]:
        typer.echo(
            f"answers without use: {len(summary['overlay_unused'])} of ids that no record has, "
            f"{len(summary['overlay_not_written'])} of records that were quarantined or left out; see "
            f"{output / 'quarantine' / 'overlay.csv'}"
        )


def inspect(
    paths: Annotated[
        list[str], typer.Argument(help="Shards, folders of them, or what `marco data ingest` wrote.", metavar="PATH")
    ],
    contact_sheet: Annotated[Path | None, typer.Option(help="Write examples of each class to this PNG.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Images of each class on the sheet.")] = 6,
    raw_labels: Annotated[
        bool, typer.Option("--raw-labels", help="List the raw labels too, with the classes that they are in.")
    ] = False,
) -> None:
    """Count a set's images by class, institution, imager and size, and explain the quarantine of an ingest.

    Example: marco data inspect --contact-sheet sheet.png runs/checked
    """
    terminal = console.Console(highlight=False)
    quarantines = {path: entries for path in paths if (entries := inspection.read_quarantine(path)) is not None}
    try:
        images = inspection.inspect_shards(paths, samples if contact_sheet else 0)
    except InputError:
        # An aborted ingest leaves its quarantine and no shards.
        if len(quarantines) < len(paths):
            raise
    else:
        _print_images(terminal, images, raw_labels, contact_sheet)
    for path, entries in quarantines.items():
        terminal.print(_quarantine(path, entries) if entries else f"the quarantine of {path} is empty")


def _print_images(
    terminal: console.Console, images: inspection.Inspection, raw_labels: bool, contact_sheet: Path | None
) -> None:
    terminal.print(f"{images.records} images in {images.shards} shards")
    if images.unreadable:
        terminal.print(f"{images.unreadable} records cannot be read; `marco data ingest` says why")
    terminal.print(_by_split("Classes", ("class",), images.classes))
    terminal.print(_by_split("Institutions and imagers", ("institution", "imager"), images.imagers))
    terminal.print(_by_split("Sizes", ("pixels",), images.sizes))
    if raw_labels:
        terminal.print(_by_split("Raw labels", ("number", "raw label", "class"), images.raw_labels))
    if contact_sheet:
        inspection.write_contact_sheet(contact_sheet, images.samples)
        terminal.print(f"examples of each class in {contact_sheet}")


def _by_split(title: str, names: tuple[str, ...], counts: inspection.Counts) -> table.Table:
    """Returns a table of counts, whose keys are a split and the names; most frequent first, the sum last."""
    splits = [split for split in ("train", "eval", "unknown") if any(key[0] == split for key in counts)]
    shown = _table(title, *names, *splits, "all")
    totals: dict[tuple[str, ...], int] = {}
    for key, count in counts.items():
        totals[key[1:]] = totals.get(key[1:], 0) + count
    for key, total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        shown.add_row(*key, *(str(counts.get((split, *key), 0)) for split in splits), str(total))
    shown.add_section()
    sums = [sum(count for key, count in counts.items() if key[0] == split) for split in splits]
    shown.add_row("all", *[""] * (len(names) - 1), *map(str, sums), str(sum(sums)))
    return shown


def _quarantine(path: str, entries: dict[str, list[dict[str, str]]]) -> table.Table:
    shown = _table(f"Quarantine of {path}", "reason", "records", "what it means", "for instance")
    for reason, rows in entries.items():
        instance = f"{rows[0]['shard']}, record {rows[0]['index']}: {rows[0]['detail']}"
        shown.add_row(reason, str(len(rows)), contract.REASONS.get(reason, ""), instance)
    shown.add_section()
    shown.add_row("all", str(sum(map(len, entries.values()))), "", "")
    return shown


def _table(title: str, *columns: str) -> table.Table:
    shown = table.Table(title=title, title_justify="left")
    for column in columns:
        counts = column in ("train", "eval", "unknown", "all", "records")
        shown.add_column(column, justify="right" if counts else "left", overflow="fold")
    return shown


def synthesize(
    output: Annotated[Path, typer.Option(help="New folder for the set.")],
    images: Annotated[int, typer.Option(min=1, help="How many images to draw.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    eval_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the images in the test shards.")] = 0.2,
    size: Annotated[str, typer.Option(help="`full`, or the shorter side in pixels.")] = "full",
    label_noise: Annotated[float, typer.Option(min=0, max=1, help="Share of images filed under a wrong class.")] = 0.0,
    shard_images: Annotated[int, typer.Option(min=1, help="Most images per shard.")] = 1024,
    processes: Annotated[int, typer.Option(min=1, help="How many processes draw.")] = 2,
) -> None:
    """Draw synthetic drops of all four classes, as five institutions' imagers would see them, in the MARCO contract.

    Image number i depends on the seed and i alone. A folder that already holds this set is left unchanged.

    Example: marco data synthesize --output runs/drops --images 400 --seed 0
    """
    from marco_data import synthetic

    if size != "full" and not size.isdecimal():
        raise InputError(f"--size is {size!r}; give `full` or the shorter side in pixels, such as 320")
    shorter_side = 0 if size == "full" else int(size)
    drawn = synthetic.Settings(seed=seed, eval_share=eval_share, shorter_side=shorter_side, label_noise=label_noise)
    manifest = synthetic.synthesize(output, images, drawn, shard_images=shard_images, processes=processes)
    for group, counts in manifest["counts"].items():
        typer.echo(f"{group}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    typer.echo(f"{manifest['images']} images in {output}")


def export(
    data: Annotated[
        list[str], typer.Option(help="Shards, or what `marco data ingest` wrote; local or gs://. May be repeated.")
    ],
    output: Annotated[Path, typer.Option(help="New folder: raters/ for the experts, key.csv not for them.")],
    model: options.Model = None,
    share: Annotated[float, typer.Option(help="Share of each split's images to export.")] = 0.05,
    folds: Annotated[
        int,
        typer.Option(min=0, help="Judge each image by a model of the features, fitted without its fold; 0: by scores."),
    ] = 0,
    raters: Annotated[
        list[str] | None,
        typer.Option(help="Who gets a sheet; may be repeated, or names joined by commas."),
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
    from marco_data.relabelling import export, scoring

    store.require_new_or_empty(output)
    export.check_share(share)
    if folds:
        scoring.check_folds(folds)
    names = [name.strip() for value in raters or ["expert"] for name in value.split(",") if name.strip()]
    export.check_raters(names)
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
    chosen = export.most_disagreeing(scored, share)
    about = {"model": classifier.name, "data": data, "share": share, "folds": folds, "seed": seed, "raters": names}
    summary = export.write_export(output, files, scored, chosen, names, seed, skipped, about)
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
            typer.echo(f"{split}: none of {counts['scored']} images, because each is in another split too")
            continue
        typer.echo(
            f"{split}: {counts['exported']} of {counts['scored']} images, disagreement from "
            f"{counts['least_disagreement']:.3f} up, {counts['predicted_otherwise']} predicted otherwise"
        )
    typer.echo(f"for the experts: {output / 'raters'} (open index.html); not for them: {output / 'key.csv'}")
    typer.echo(f"then: marco relabel merge SHEET… --key {output / 'key.csv'} --output overlay.csv")
    if summary["skipped"]:
        typer.echo(f"{summary['skipped']} records could not be scored, see {output / 'skipped.csv'}", err=True)


def merge(
    sheets: Annotated[list[str], typer.Argument(help="Filled-in sheets, one or more per rater.", metavar="SHEET…")],
    key: Annotated[str, typer.Option(help="The key.csv of the export.")],
    output: Annotated[Path, typer.Option(help="CSV to write; the report and the lists of what is left go beside it.")],
    rule: Annotated[
        str, typer.Option(help="`majority`, `unanimous`, or `first`: of the first sheet that has an answer.")
    ] = "majority",
    date: Annotated[str, typer.Option(help="Date of answers without one, YYYY-MM-DD.")] = "",
    earlier: Annotated[
        str | None,
        typer.Option(help="An overlay of an earlier round, whose answers stay where this one has none."),
    ] = None,
) -> None:
    """Combine experts' answers into an overlay, which `marco run --overlay` and `marco data ingest --overlay` apply.

    Where the rule settles nothing an image stays as it was, and is listed in OUTPUT's .undecided.csv. Answers that
    cannot be used stop the merge, each named by file and line.

    Example: marco relabel merge anna.csv ben.csv --key look/key.csv --output overlay.csv
    """
    from marco_data.relabelling import merging

    report, answers = merging.merge_sheets(sheets, key, output, rule=rule, date=date, earlier=earlier or "")
    typer.echo("\n".join(merging.report_lines(report)))
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
    if report["undecided"]:
        typer.echo(f"{report['undecided']} undecided, see {output.with_suffix('.undecided.csv')}", err=True)
