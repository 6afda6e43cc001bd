"""`marco predict`, `explain`, `released` and `tflite`: what one does with a classifier and a folder of images."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

import marco_model
from marco_data import image_files, progress
from marco_model import model_directory as directories
from marco_model import store
from marco_model.errors import InputError
from pipelines.commands import options


def images(paths: Sequence[Path]) -> list[Path]:
    """Returns the image files among and below `paths`; raises `InputError` where there are none."""
    files = image_files.find_images(paths)
    if not files:
        endings = " ".join(image_files.ENDINGS)
        raise InputError(f"no images in {', '.join(map(str, paths))}; endings looked for: {endings}")
    return files


def model_directory(model: str | None, doing: str) -> Path:
    """Returns the folder of the SavedModel: `model`'s or, by default, the published classifier's, which is announced.

    A model on `gs://` is downloaded into a folder that is removed when the process ends. `doing` completes the
    announcement, such as `scoring with`. Raises `InputError` if there is no model.
    """
    if model is None:
        typer.echo(f"no --model given: {doing} the classifier published in 2018", err=True)
        return directories.saved_model_directory(directories.published_directory())
    if store.is_object(model):
        from components.published_models import download

        folder = tempfile.mkdtemp(prefix="marco-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return download(model, Path(folder))
    return directories.saved_model_directory(model)


def predict(
    paths: options.ImagePaths,
    output: Annotated[Path, typer.Option(help="CSV to write; unreadable files go beside it, into *.errors.csv.")],
    model: options.Model = None,
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
    from marco_scoring import plate_report, prediction

    _check_report(report, output, bool(explain or thumbnail_size or crystal_class))
    files = images(paths)
    directory = model_directory(model, "scoring with")
    classifier = marco_model.open_classifier(directory)
    if report is None:
        outcome = prediction.predict(classifier, files, output, batch_size)
    else:
        page = plate_report.Options(_explain_command(model), explain, thumbnail_size, crystal_class or [])
        outcome = plate_report.predict_with_report(classifier, files, output, report, page, batch_size)
    counts = ", ".join(f"{count} {name}" for name, count in outcome.by_class.items())
    typer.echo(f"{output}: {sum(outcome.by_class.values())} images scored: {counts}")
    if report is not None:
        typer.echo(f"{report}: {report.stat().st_size / 1e6:.1f} MB, opens in a browser")
    if outcome.failed:
        errors = prediction.errors_path(output)
        typer.echo(f"{outcome.failed} of {len(files)} files could not be scored, see {errors}", err=True)
        raise typer.Exit(1)


def _check_report(report: Path | None, output: Path, about_report: bool) -> None:
    """Raises `InputError`, before anything is scored, for a report that could not be written."""
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
    paths: options.ImagePaths,
    output: Annotated[Path, typer.Option(help="Folder for one overlay per image, and explained.csv.")],
    model: options.Model = None,
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
    """Show which pixels a score depends on (SmoothGrad): a heat map over the grey image, one PNG per image.

    explained.csv lists the class that each picture explains, and its score. The exit status is 1 if some file could not
    be explained; the others are explained all the same. docs/explain.md says what the maps mean and don't mean.

    Example: marco explain --model models/released --output explained --class Crystals plates/03c3
    """
    from marco_scoring import prediction

    files = images(paths)
    directory = model_directory(model, "explaining")
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
    )
    table = output / prediction.EXPLAINED
    typer.echo(f"{output}: {len(files) - failed} overlays, listed in {table}")
    if failed:
        errors = prediction.errors_path(table)
        typer.echo(f"{failed} of {len(files)} files could not be explained, see {errors}", err=True)
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
    model: options.Model = None,
) -> None:
    """Convert a classifier to TensorFlow Lite, and check it on images of yours: each must get the same class.

    What the file takes and gives is in docs/model.md. A run does the same by itself with --set export.tflite=true.

    Example: marco tflite --model models/released --output released.tflite plates/03c3
    """
    files = images(paths)
    directory = model_directory(model, "converting")
    classifier = marco_model.open_classifier(directory)
    from marco_model.tflite import convert_and_check

    def encoded() -> Iterator[bytes]:
        with progress.progress("checking", len(files)) as advance:
            for path in files:
                try:
                    yield image_files.encoded_image(path)
                except InputError as error:
                    raise InputError(f"{path} {error}; leave it out") from None
                advance(1)

    converted, agreement = convert_and_check(classifier, encoded())
    with store.whole_file(output, "wb") as file:
        file.write(converted)
    typer.echo(
        f"{output}: {len(converted) / 1e6:.1f} MB, the same class on all {agreement.images} images, "
        f"scores within {agreement.largest_difference:.1g}"
    )
