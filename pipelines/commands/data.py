"""`marco data`: make, import, check and describe sets of scored images."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import console, table

from components import settings
from marco_data import contract, exporting, importing, inspection, label_tables, shards
from marco_model import InputError, pixels, store
from pipelines import configuration
from pipelines.commands import options

app = typer.Typer()


@app.command("import")
def import_(
    output: Annotated[Path, typer.Option(callback=options.new_folder, help="New folder for the shards.")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder with one sub-folder per class; with --csv, the folder of the files listed."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Labels: filename,label or terf's header; paths are relative to it.")
    ] = None,
    institution: Annotated[str, typer.Option(help="Where the images come from; metrics are sliced by it.")] = "",
    eval_share: Annotated[float, typer.Option(help="Share of plates, or images, held out as test shards.")] = 0.2,
    validation_share: Annotated[
        float, typer.Option(help="Share of plates, or images, held out as validation shards.")
    ] = 0.15,
    shard_images: Annotated[int, typer.Option(min=1, help="Most images per shard.")] = 1024,
    raw_labels: Annotated[
        bool, typer.Option("--raw-labels", help="The labels are your own names; a label scheme maps them to classes.")
    ] = False,
    names: options.Names = "",
    keep_splits: Annotated[
        bool, typer.Option("--keep-splits", help="Take the splits from the column `split`, which an export writes.")
    ] = False,
    bits: options.Bits = None,
) -> None:
    """Make MARCO shards of JPEG, PNG, TIFF and BMP images with labels from a CSV, or from one folder per class.

    Classes are Clear, Crystals, Other and Precipitate, unless --raw-labels takes labels of your own (docs/labels.md).
    Files that cannot be read are listed in import.errors.csv, the rest is imported, and the exit status is 1.

    Example: marco data import --output drops --csv labels.csv --institution CSIRO
    """
    if csv is None and folder is not None and folder.suffix.lower() == ".csv" and not folder.is_dir():
        csv, folder = folder, None
    if csv is not None and csv.is_dir():
        raise InputError(f"--csv {csv} is a folder; leave --csv out if it has a folder for each class")
    if keep_splits and csv is None:
        raise InputError("--keep-splits takes the splits from a CSV; give --csv labels.csv too")
    if csv is not None:
        labels = label_tables.from_csv(csv, folder, institution, raw_labels, names, keep_splits)
    elif folder is not None:
        labels = label_tables.from_folder(folder, institution, raw_labels, names)
    else:
        raise InputError("nothing to import; give a folder that has a folder for each class, or --csv labels.csv")
    shares = {"eval_share": eval_share, "validation_share": validation_share}
    done = importing.import_images(labels, output, **shares, shard_images=shard_images, bits=bits)
    _end(output, done.written, done.warnings, done.errors, importing.ERRORS_FILE)


def _end(
    output: Path, counts: Mapping[str, int], warnings: Sequence[str], failures: Sequence[tuple[str, str]], listed: str
) -> None:
    """Prints how many images are in `output`, and which are not and why; ends with status 1 if there are such."""
    parts = ", ".join(f"{name} {count}" for name, count in counts.items())
    options.echo(f"{options.counted(sum(counts.values()), 'image')} in {output} ({parts})")
    for warning in warnings:
        options.echo(f"warning: {warning}", err=True)
    if failures:
        for place, reason in failures[:5]:
            options.echo(f"left out: {place}: {reason}", err=True)
        options.echo(f"{len(failures)} left out in all, listed in {output / listed}", err=True)
        raise typer.Exit(1)


@app.command()
def export(
    paths: Annotated[
        list[str], typer.Argument(help="Shards, folders of them, or what `marco data ingest` wrote.", metavar="PATH")
    ],
    output: Annotated[
        Path, typer.Option(callback=options.new_folder, help="New folder for the images and labels.csv.")
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Only this split: train, validation or eval; may be repeated.")
    ] = None,
    class_name: Annotated[list[str] | None, typer.Option("--class", help="Only this class; may be repeated.")] = None,
    institution: Annotated[list[str] | None, typer.Option(help="Only this institution; may be repeated.")] = None,
) -> None:
    """Write the images of shards as files, in one folder per class, with a labels.csv that `marco data import` takes.

    The bytes are those of the shards. Import with --keep-splits makes the same set again. Records that cannot be used
    are listed in export.errors.csv, and the exit status is 1.

    Example: marco data export --output crystals --class Crystals --split eval runs/drops
    """
    choice = exporting.Choice(split or (), class_name or (), institution or ())
    done = exporting.export_images(paths, output, choice)
    warnings = [f"left out, with the id of another image: {done.repeated}"] if done.repeated else []
    failures = [(f"{shard}, record {index}", reason) for shard, index, reason in done.failures]
    _end(output, dict(sorted(done.by_class.items())), warnings, failures, exporting.ERRORS_FILE)


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Which records are written, into which split, by the names of `components.settings.IngestOptions`."""

    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Give up if a larger share of the records fails a check.")
    ] = 1.0
    split_by: Annotated[str, typer.Option(help="`shard`: by the shards' names; `hash`: by plate or image id.")] = (
        "shard"
    )
    eval_share: Annotated[float, typer.Option(help="Share of the evaluation split when split by hash.")] = 0.1
    splits: Annotated[
        str, typer.Option(help="`three`: draw a validation split unless the set has one; `as_published`: do not.")
    ] = "three"
    validation_share: Annotated[
        float, typer.Option(help="Share of the training split that becomes the validation split.")
    ] = 0.1
    max_pixels: Annotated[
        int, typer.Option(min=1, max=pixels.MAX_PIXELS, help="Do not decode images of more pixels.")
    ] = pixels.MAX_PIXELS
    overlay: Annotated[
        str, typer.Option(help="Labels that experts gave some images, which `marco relabel merge` wrote.")
    ] = ""
    names: options.Names = ""


@app.command()
@options.grouped
def ingest(
    *,
    paths: Annotated[
        list[str], typer.Argument(help="Shards: files, folders or globs, local or gs://.", metavar="PATH")
    ],
    output: Annotated[
        Path, typer.Option(callback=options.output_folder, help="New folder for examples, quarantine and summary.json.")
    ],
    labels: Annotated[
        str, typer.Option(help="Classes to write: four, hwmri10, raw, or a .yaml file with a section `labels`.")
    ] = "four",
    checks: CheckOptions,
) -> None:
    """Check every record of MARCO shards and write TFX Examples, setting aside what fails.

    OUTPUT gets examples/Split-train, Split-validation and Split-eval, quarantine/ with the records that failed,
    quarantine.csv with the reason for each, and summary.json with the counts. `marco data inspect OUTPUT` explains
    them.

    Example: marco data ingest --output runs/checked drops
    """
    # Before Beam and TensorFlow are imported, so that a mistyped path fails at once.
    shards.find_shards(paths)
    from components.example_gen import ingest as checking

    scheme = configuration.label_scheme(configuration.load_labels(labels), *paths)
    values = {**vars(checks), "label_scheme": scheme}
    parsed = settings.parse(settings.IngestOptions, values, "the options of marco data ingest")
    summary = checking.ingest_to_folder(paths, output, parsed)
    splits = ", ".join(f"{split} {count}" for split, count in summary["splits"].items())
    options.echo(f"{summary['read']} records read, {summary['written']} written ({splits})")
    if summary["left_out"]:
        options.echo(f"{summary['left_out']} left out:")
    for label, count in summary["left_out_labels"].items():
        options.echo(f"  {label} {count}")
    if checks.overlay:
        _print_overlay(summary, output)
    options.echo(f"{summary['quarantined']} quarantined" + (":" if summary["reasons"] else ""))
    for reason, count in summary["reasons"].items():
        options.echo(f"  {reason} {count}")
    if summary["lost"]:
        options.echo(f"about {summary['lost']} more lost in rests of shards that cannot be read")
    if summary["empty_shards"]:
        options.echo(f"empty shards: {', '.join(summary['empty_shards'])}")
    if not summary["sources"]:
        options.echo("no sources.csv found: institutions are named by number, imagers are unknown", err=True)


def _print_overlay(summary: dict[str, Any], output: Path) -> None:
    relabelled = summary["relabelled"]
    options.echo(f"{relabelled['total']} relabelled, {relabelled['confirmed']} confirmed by the overlay")
    for old, new in relabelled["by_class"].items():
        for name, count in new.items():
            options.echo(f"  {old} -> {name} {count}")
    if summary["overlay_unused"] or summary["overlay_not_written"]:
        options.echo(
            f"answers without use: {len(summary['overlay_unused'])} of ids that no record has, "
            f"{len(summary['overlay_not_written'])} of records that were quarantined or left out; see "
            f"{output / 'quarantine' / 'overlay.csv'}"
        )


def _contact_sheet(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """As `options.output_file`, for a PNG, which takes the place of no other image."""
    options.writable_file(parameter, value)
    if value is not None and not store.is_stream(value):
        option = f"{parameter.opts[0]} {value}"
        if value.suffix.lower() != ".png":
            raise InputError(f"{option} would be a PNG; give it a name in .png")
        if value.is_file() and not inspection.is_contact_sheet(value):
            raise InputError(f"{option} exists and is no contact sheet; give another name, or delete it first")
    return value


@app.command()
def inspect(
    paths: Annotated[
        list[str], typer.Argument(help="Shards, folders of them, or what `marco data ingest` wrote.", metavar="PATH")
    ],
    contact_sheet: Annotated[
        Path | None, typer.Option(callback=_contact_sheet, help="Write examples of each class to this PNG.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Images of each class on the sheet.")] = 6,
    raw_labels: Annotated[
        bool, typer.Option("--raw-labels", help="List the raw labels too, with the classes that they are in.")
    ] = False,
) -> None:
    """Count a set's images by class, institution, imager and size, and explain the quarantine of an ingest.

    Example: marco data inspect --contact-sheet sheet.png runs/checked
    """
    terminal = options.Terminal(highlight=False)
    if contact_sheet:
        store.refuse_inputs([("--contact-sheet", contact_sheet)], _files(paths))
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


def _files(paths: Sequence[str]) -> list[str]:
    """Returns the local files that are or may be a set's; the set is checked when it is read."""
    with contextlib.suppress(InputError):
        return [file.path for path in paths if not store.is_remote(path) for file in shards.list_files(path)]
    return []


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
    splits = [split for split in (*shards.SPLITS, "unknown") if any(key[0] == split for key in counts)]
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
        counts = column in (*shards.SPLITS, "unknown", "all", "records")
        shown.add_column(column, justify="right" if counts else "left", overflow="fold")
    return shown


@app.command()
def synthesize(
    output: Annotated[Path, typer.Option(callback=options.output_folder, help="New folder for the set.")],
    images: Annotated[int, typer.Option(min=1, help="How many images to draw.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    eval_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the images in the test shards.")] = 0.2,
    size: Annotated[str, typer.Option(help="`full`, or the shorter side in pixels.")] = "full",
    label_noise: Annotated[float, typer.Option(min=0, max=1, help="Share of images filed under a wrong class.")] = 0.0,
    inspections: Annotated[
        int, typer.Option(min=1, help="Images of each drop over time, 1 to 12; drops.csv tells when crystals came.")
    ] = 1,
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
    drawn = synthetic.Settings(
        seed=seed, eval_share=eval_share, shorter_side=shorter_side, label_noise=label_noise, inspections=inspections
    )
    manifest = synthetic.synthesize(output, images, drawn, shard_images=shard_images, processes=processes)
    for group, counts in manifest["counts"].items():
        options.echo(f"{group}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    options.echo(f"{manifest['images']} images in {output}")
