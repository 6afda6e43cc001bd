"""`marco tflite`: a classifier as a TensorFlow Lite model."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer


def images(paths: Sequence[Path]) -> list[Path]:
    """Returns the image files among and below `paths`; raises `InputError` where there are none."""
    from marco_data.image_files import ENDINGS, find_images
    from marco_model.errors import InputError

    files = find_images(paths)
    if not files:
        raise InputError(f"no images in {', '.join(map(str, paths))}; endings looked for: {' '.join(ENDINGS)}")
    return files


def model_directory(model: str | None, doing: str) -> Path:
    """Returns the folder of the SavedModel: `model`'s or, by default, the published classifier's, which is announced.

    A model on `gs://` is downloaded into a folder that is removed when the process ends. `doing` completes the
    announcement, such as `scoring with`. Raises `InputError` if there is no model.
    """
    from marco_model.model_directory import published_directory, saved_model_directory
    from marco_model.store import is_object

    if model is None:
        typer.echo(f"no --model given: {doing} the classifier published in 2018", err=True)
        return saved_model_directory(published_directory())
    if is_object(model):
        from components.bucket_models import download

        folder = tempfile.mkdtemp(prefix="marco-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return download(model, Path(folder))
    return saved_model_directory(model)


def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="CSV to write; unreadable files go beside it, into *.errors.csv.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML file to write too: plate maps, scores over time, ranked images (docs/plates.md)."),
    ] = None,
    explain: Annotated[
        int, typer.Option(min=0, help="In the report: overlays of the evidence for crystals, for the N best images.")
    ] = 0,
    thumbnail_size: Annotated[
        int | None,
        typer.Option(min=64, max=1024, help="In the report: pixels of an image's longer side. Without it: by number."),
    ] = None,
    crystal_class: Annotated[
        list[str] | None,
        typer.Option(
            help="In the report: the class to rank by; may be repeated. Without it: all named after crystals."
        ),
    ] = None,
) -> None:
    """Score drop images into a CSV: one row per image, one column per class.

    Folders are searched with their subfolders. Plate and well are filled in if the file name contains them. The exit
    status is 1 if some file could not be scored; the others are scored all the same.

    Example: marco predict --model models/released --output scores.csv --report plate.html plates/03c3
    """
    from marco_scoring.prediction import errors_path
    from marco_scoring.prediction import predict as predict_files

    _check_report(report, output, bool(explain or thumbnail_size or crystal_class))
    files = images(paths)
    found = model_directory(model, "scoring with")
    from marco_model.load import load

    classifier = load(found)
    if report is None:
        outcome = predict_files(classifier, files, output, batch_size)
    else:
        from marco_scoring.plate_report import Options, predict_with_report

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


def explain(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for an overlay an image and explained.csv.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="The class to explain. Without it: of each image the predicted one."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noisy copies of an image; time grows with them.")] = 50,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Standard deviation of the noise, a share of the image's range.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Noisy copies at once.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise; the same seed gives the same picture.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Write attributions too: .npy, float32 [size, size].")] = False,
) -> None:
    """Show which pixels a score hangs on (SmoothGrad): a heat map over the grey image, one PNG an image.

    explained.csv says which class each picture explains and its score. The exit status is 1 if some file could not be
    explained; the others are all the same. What the maps mean and don't mean is in docs/explain.md.

    Example: marco explain --model models/released --output explained --class Crystals plates/03c3
    """
    from marco_scoring.explanation import TABLE, Options
    from marco_scoring.explanation import explain as explain_files
    from marco_scoring.prediction import errors_path

    files = images(paths)
    found = model_directory(model, "explaining")
    from marco_model.load import load

    options = Options(samples, noise, batch_size, seed, class_name, raw)
    failed = explain_files(load(found), files, output, options)
    typer.echo(f"{output}: {len(files) - failed} overlays, listed in {output / TABLE}")
    if failed:
        typer.echo(
            f"{failed} of {len(files)} files could not be explained, see {errors_path(output / TABLE)}", err=True
        )
        raise typer.Exit(1)


def released(
    output: Annotated[Path, typer.Option(help="New folder for the SavedModel.")],
) -> None:
    """Write the published classifier (Bruno et al. 2018) as a model with named scores in a fixed order.

    Example: marco released --output models/released
    """
    from marco_model.weights import export_published

    export_published(output)
    typer.echo(f"{output}: the published classifier; try: marco predict --model {output} --output scores.csv IMAGES")


def tflite(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images on which both models must name the same class.")
    ],
    output: Annotated[Path, typer.Option(help="File to write, such as model.tflite.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
) -> None:
    """Convert a classifier to TensorFlow Lite, and check it on images of yours: each must get the same class.

    What the file takes and gives is in docs/model.md. A run does the same by itself with --set export.tflite=true.

    Example: marco tflite --model models/released --output released.tflite plates/03c3
    """
    from marco_data.image_files import encoded_image
    from marco_data.progress import progress
    from marco_model.errors import InputError

    files = images(paths)
    found = model_directory(model, "converting")
    from marco_model.load import load
    from marco_model.tflite import convert_and_check

    def encoded() -> Iterator[bytes]:
        with progress("checking", len(files)) as advance:
            for path in files:
                try:
                    yield encoded_image(path)
                except InputError as error:
                    raise InputError(f"{path} {error}; leave it out") from None
                advance(1)

    converted, agreement = convert_and_check(load(found), encoded())
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    aside.write_bytes(converted)
    aside.replace(output)
    typer.echo(
        f"{output}: {len(converted) / 1e6:.1f} MB, the same class on all {agreement.images} images, "
        f"scores within {agreement.largest_difference:.1g}"
    )
