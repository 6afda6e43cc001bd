"""What one does with a classifier: score images, explain scores, convert it, serve it, get the published one."""

import functools
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import marco_model
from marco_data import image_files, place_reader, progress
from marco_model import InputError, store
from marco_scoring.serving import classify
from pipelines.commands import options

if TYPE_CHECKING:
    from marco_scoring import prediction

DEFAULT_PORT = 8080


def images(paths: Sequence[str | Path]) -> list[Path]:
    """Returns the image files among and below `paths`, see `scored_images.find_files`; what is left out is on stderr.

    Raises `InputError` if there are none.
    """
    from marco_scoring import scored_images

    files, left_out = scored_images.find_files(paths)
    if not files:
        endings = " ".join(image_files.ENDINGS)
        passed_over = "; ".join(filter(None, (f"endings looked for: {endings}", left_out)))
        raise InputError(f"no images in {', '.join(map(str, paths))}; {passed_over}")
    if left_out:
        options.echo(left_out, err=True)
    return files


_RESULTS, _REPORT = "Results", "Report"


def predict(
    paths: options.ImagePaths,
    output: Annotated[
        Path | None,
        typer.Option(
            callback=options.output_file,
            help="Table to write; files that cannot be scored go beside it, into *.errors.csv. `-` writes to standard "
            "output. Without it: a table on a terminal, otherwise CSV to standard output.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    model: options.Model = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
    average: options.Average = 1,
    names: options.Names = "",
    bits: options.Bits = None,
    format: Annotated[
        Literal["csv", "excel", "jsonl"] | None,
        typer.Option(
            help="`excel` is CSV that Excel opens with the right letters, `jsonl` is one JSON object per line. "
            "Without it: by the ending of --output, CSV unless that is .jsonl.",
            rich_help_panel=_RESULTS,
        ),
    ] = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="One row per drop: the image with the highest crystal score of all slices, lights and inspections.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    append: Annotated[
        bool,
        typer.Option(
            "--append",
            help="Keep the rows of --output, and score only images that are new or have changed since.",
            rich_help_panel=_RESULTS,
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue a run that was stopped: score only what is missing.", rich_help_panel=_RESULTS
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            callback=options.output_file,
            help="HTML file to write too: plate maps, scores over time, ranked images (docs/plates.md).",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    explain: Annotated[
        int,
        typer.Option(
            min=0, help="Overlays of the evidence for crystals, for the N best images.", rich_help_panel=_REPORT
        ),
    ] = 0,
    thumbnail_size: Annotated[
        int | None,
        typer.Option(
            min=64, max=1024, help="Pixels of an image's longer side. Without it: by number.", rich_help_panel=_REPORT
        ),
    ] = None,
    crystal_class: Annotated[
        list[str] | None,
        typer.Option(
            help="The class to rank by, also for --best; may be repeated. Without it: all named after crystals.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
) -> None:
    """Score drop images into a table: one row per image, one column per class.

    Folders are searched with their subfolders. Plate, well, drop, inspection and date are filled in if the path
    states them. The exit status is 1 if some file could not be scored; the others are scored all the same.

    A run that is stopped, or meets a full disk, keeps its rows in a file beside the table, such as scores.partial.csv,
    and --resume continues it. docs/scores.md has the columns.

    Example: marco predict --output scores.csv --report plate.html plates/03c3

    Each night: marco predict --output scores.csv --append plates
    """
    from marco_scoring import prediction, score_table

    _check_report(report, output, bool(explain or thumbnail_size or (crystal_class and not best)))
    files = images(paths)
    _check_inputs(output, report, [*files, *([names] if place_reader.is_table(names) else [])])
    place_of = place_reader.reader(files, names)
    if unused := place_reader.unused_rows(place_of, files):
        options.echo(unused, err=True)
    read = functools.partial(image_files.encoded_image, bits=bits)
    directory = options.model_directory(model, "scoring with")
    classifier = marco_model.open_classifier(directory, average=average)
    written = score_table.Options(format, resume, append, best, crystal_class or ())
    if report is None:
        outcome = prediction.predict(
            classifier, files, output, batch_size, place_of=place_of, options=written, read=read
        )
    else:
        from marco_scoring import plate_report

        chosen = [*(["--model", model] if model else []), *(["--bits", str(bits)] if bits else [])]
        command = ["marco", "explain", *chosen, "--output", "explained"]
        page = plate_report.Options(command, explain, thumbnail_size, crystal_class or [], place_of=place_of, read=read)
        outcome = plate_report.predict_with_report(classifier, files, output, report, page, batch_size, written)
    # Standard output may be the table.
    to_file = output is not None and output != score_table.STDOUT and not store.is_stream(output)
    _print_outcome(outcome, output, to_file)
    if report is not None:
        options.echo(f"{report}: {report.stat().st_size / 1e6:.1f} MB, opens in a browser", err=not to_file)
    if outcome.failed:
        where = f", see {score_table.errors_path(output)}" if to_file and output else ""
        options.echo(f"{outcome.failed} of {len(files)} files could not be scored{where}", err=True)
        raise typer.Exit(1)


def _print_outcome(outcome: "prediction.Outcome", output: Path | None, to_file: bool) -> None:
    from marco_model import pixels
    from marco_scoring import prediction

    counts = ", ".join(f"{count} {name}" for name, count in outcome.by_class.items())
    total = sum(outcome.by_class.values())
    scored = f"{options.counted(total, 'image')} scored: {counts}"
    options.echo(f"{output}: {scored}" if to_file else scored, err=not to_file)
    if outcome.earlier:
        options.echo(f"{total - outcome.earlier} of them now, {outcome.earlier} by an earlier run", err=True)
    if outcome.gone:
        options.echo(f"kept, of images that are gone: {options.counted(outcome.gone, 'row')}", err=True)
    if outcome.strange:
        options.echo(
            f"none of these images is in the {options.counted(outcome.strange, 'row')} that {output} had; paths are "
            "compared from the working folder, so give them from the same one (docs/scores.md)",
            err=True,
        )
    unusable = {name: count for name in pixels.UNUSABLE if (count := outcome.by_flag.get(name))}
    if unusable:
        flags = ", ".join(f"{count} {name}" for name, count in unusable.items())
        options.echo(f"counted, but flagged, as pictures that cannot be judged (docs/scores.md): {flags}", err=True)
    if unknown := outcome.by_flag.get(prediction.UNKNOWN):
        options.echo(
            f"{options.counted(unknown, 'image')} unlike those that the model was trained on, where scores say less "
            "(flag unknown, docs/scores.md): look at them yourself",
            err=True,
        )
    if outcome.without_well and total > 1:
        options.echo(
            f"{outcome.without_well} of {total} scored images have no well; --names reads names of your own "
            "(docs/data.md)",
            err=True,
        )


def _check_report(report: Path | None, output: Path | None, about_report: bool) -> None:
    """Raises `InputError`, before anything is scored, for tables and reports that could not be written."""
    if report is None:
        if about_report:
            raise InputError(
                "--explain and --thumbnail-size need --report FILE; --crystal-class needs --report FILE or --best"
            )
        return
    if str(report) == "-":
        raise InputError("--report - would be a file of that name; give the page a name in .html")
    for name, path in _table_files(output).items():
        if report.resolve() == path.resolve():
            raise InputError(f"--report and {name} are both {report}; give two names")


def _table_files(output: Path | None) -> dict[str, Path]:
    """Returns the files that writing the table makes, by what messages call them; none for standard output."""
    from marco_scoring import score_table

    if output is None or output == score_table.STDOUT:
        return {}
    beside = {"list of failures": score_table.errors_path(output), "partial file": score_table.partial_path(output)}
    return {"--output": output, **{f"the {name} of --output": path for name, path in beside.items()}}


def _check_inputs(output: Path | None, report: Path | None, inputs: Sequence[str | Path]) -> None:
    """Raises `InputError`, before anything is read, if the table or the report would replace an input."""
    store.refuse_inputs([*_table_files(output).items(), *([("--report", report)] if report else [])], inputs)


def explain(
    paths: options.ImagePaths,
    output: Annotated[
        Path, typer.Option(callback=options.output_folder, help="Folder for one overlay per image, and explained.csv.")
    ],
    model: options.Model = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class to explain. Without it: of each image the predicted one.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noisy copies of an image; time grows with them.")] = 50,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Standard deviation of the noise, a share of the image's range.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Noisy copies at once.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise; the same seed gives the same picture.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Write attributions too: .npy, float32, size × size.")] = False,
    bits: options.Bits = None,
) -> None:
    """Show which pixels a score depends on (SmoothGrad): a heat map over the grey image, one PNG per image.

    explained.csv lists the class that each picture explains, and its score. The exit status is 1 if some file could not
    be explained; the others are explained all the same. docs/explain.md says what the maps mean and don't mean.

    Example: marco explain --model models/released --output explained --class Crystals plates/03c3
    """
    from marco_scoring import prediction, score_table

    files = images(paths)
    directory = options.model_directory(model, "explaining")
    classifier = marco_model.open_classifier(directory)
    failed = prediction.explain(
        classifier,
        files,
        output,
        samples=samples,
        noise=noise,
        batch_size=batch_size,
        seed=seed,
        class_name=class_name,
        raw=raw,
        read=functools.partial(image_files.encoded_image, bits=bits),
    )
    table = output / prediction.EXPLAINED
    options.echo(f"{output}: {options.counted(len(files) - failed, 'overlay')}, listed in {table}")
    if failed:
        errors = score_table.errors_path(table)
        options.echo(f"{failed} of {len(files)} files could not be explained, see {errors}", err=True)
        raise typer.Exit(1)


def released(
    output: Annotated[Path, typer.Option(callback=options.new_folder, help="New folder for the SavedModel.")],
) -> None:
    """Write the published classifier (Bruno et al. 2018) as a model with named scores in a fixed order.

    Example: marco released --output models/released
    """
    from marco_model import weights

    weights.export_published(output)
    options.echo(f"{output}: the published classifier; try: marco predict --model {output} --output scores.csv IMAGES")


def tflite(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Images on which both models must name the same class.")
    ],
    output: Annotated[Path, typer.Option(callback=options.output_file, help="File to write, such as model.tflite.")],
    model: options.Model = None,
    bits: options.Bits = None,
) -> None:
    """Convert a classifier to TensorFlow Lite, and check it on images of yours: each must get the same class.

    What the file takes and gives is in docs/model.md. A run does the same by itself with --set export.tflite=true.

    Example: marco tflite --model models/released --output released.tflite plates/03c3
    """
    files = images(paths)
    store.refuse_inputs([("--output", output)], files)
    directory = options.model_directory(model, "converting")
    from marco_model.saved_model import convert_to_checked_tflite

    classifier = marco_model.open_classifier(directory).saved_model

    def encoded() -> Iterator[bytes]:
        with progress.progress("checking", len(files)) as advance:
            for path in files:
                try:
                    yield image_files.encoded_image(path, bits)
                except InputError as error:
                    raise InputError(f"{path} {error}; leave it out") from None
                advance(1)

    converted, agreement = convert_to_checked_tflite(classifier, encoded())
    with store.whole_file(output, "wb") as file:
        file.write(converted)
    options.echo(
        f"{output}: {len(converted) / 1e6:.1f} MB, the same class on all {agreement.images} images, "
        f"scores within {agreement.largest_difference:.1g}"
    )


@options.grouped
def serve(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's folder or gs:// URI. Without it: AIP_STORAGE_URI's, or else the published classifier."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The model's name in the routes.")] = "marco",
    host: Annotated[
        str | None, typer.Option(help="Address to listen at. [default: 127.0.0.1; on Vertex AI 0.0.0.0]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"[default: AIP_HTTP_PORT, or else {DEFAULT_PORT}]")
    ] = None,
    average: options.Average = 1,
    concurrency: classify.Concurrency,
    limits: classify.Limits,
    grace_seconds: Annotated[int, typer.Option(min=0, help="Time to answer the requests under way at SIGTERM.")] = 25,
    reload_seconds: Annotated[
        float, typer.Option(min=0, help="How often to look for a newer version of the model; 0 for never.")
    ] = 0,
    access_log: Annotated[bool, typer.Option(help="Log one line per request.")] = False,
    bits: options.Bits = None,
) -> None:
    """Serve a classifier over HTTP, by KServe's V1 and V2 protocols and Vertex AI's routes.

    How to run it as a container, and what requests and answers look like: docs/serving.md.

    Example: marco serve --model models/released --port 8080
    """
    from marco_scoring.serving import protocols, server

    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(f"--name is {name!r}; give letters, digits and ._- only")
    vertex = protocols.vertex_container(os.environ)
    host = host or ("127.0.0.1" if vertex.port is None else "0.0.0.0")
    port = port or vertex.port or DEFAULT_PORT
    _check_address(host, port)
    if limits.max_inflight_mb < limits.max_body_mb:
        raise InputError(
            f"--max-inflight-mb is {limits.max_inflight_mb}, under --max-body-mb {limits.max_body_mb}; give as "
            "much or more"
        )
    directory = options.model_directory(model or vertex.storage_uri, "serving")
    if reload_seconds:
        if not model or store.is_remote(model):
            raise InputError(f"--reload-seconds follows versions in a local folder, not --model {model}; leave it out")
        directory = Path(model)
    server.serve(
        classify.Versions(directory, concurrency.slots, average), name, host, port, concurrency, limits, vertex,
        grace_seconds=grace_seconds, reload_seconds=reload_seconds, access_log=access_log, bits=bits,
    )  # fmt: skip


def _check_address(host: str, port: int) -> None:
    """Raises `InputError` if nothing can listen at this address, before the model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from error
