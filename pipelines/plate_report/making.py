"""Scores files as `pipelines.prediction` does and writes the report of them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.plate_report.collector import Collector
from pipelines.plate_report.crystal_classes import crystal_classes
from pipelines.plate_report.page import Report, write
from pipelines.plate_report.thumbnails import usual_size
from pipelines.prediction import BATCH_SIZE, Outcome, predict

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier


@dataclasses.dataclass(frozen=True)
class Options:
    """How to make a report.

    explain_command: what it tells to run for an overlay that it has not, without class and path.
    explain: for how many of the best images it has one. samples: noisy copies for each, as in `smoothgrad`; None for
    its own number. thumbnail_size: the longer side in pixels; None for what keeps the file small enough.
    crystal_classes: names of the classes to rank by; none for all that are named after crystals.
    """

    explain_command: Sequence[str]
    explain: int = 0
    thumbnail_size: int | None = None
    crystal_classes: Sequence[str] = ()
    samples: int | None = None


def predict_with_report(
    classifier: LoadedClassifier,
    files: Sequence[Path],
    output: Path,
    report: Path,
    options: Options,
    batch_size: int = BATCH_SIZE,
) -> Outcome:
    """Scores `files` into `output`, as `predict` does, and writes the HTML file `report`.

    Raises InputError before anything is scored where the classifier has no such classes, or no gradients to explain.
    """
    crystals = crystal_classes(classifier.classes, options.crystal_classes)
    if options.explain:
        _ = classifier.logits
    size = options.thumbnail_size or usual_size(len(files))
    with Collector(size) as collector:
        outcome = predict(classifier, files, output, batch_size, collector)
    overlays = {}
    if options.explain:
        from pipelines.plate_report.saliency import overlays as explain

        overlays = explain(classifier, collector.images, crystals, options.explain, size, options.samples)
    write(
        Report(
            model=classifier.name,
            classes=classifier.classes,
            crystals=crystals,
            temperature=classifier.temperature,
            images=collector.images,
            failures=collector.failures,
            overlays=overlays,
            explain=options.explain_command,
            made=datetime.datetime.now(),
        ),
        report,
    )
    return outcome
