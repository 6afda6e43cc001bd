"""The two jobs: make a reference, and check images against one."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from components.monitoring import images, report
from components.monitoring import reference as references
from components.monitoring.drift import check
from components.monitoring.limits import Limits
from components.monitoring.measure import Measured, Sampling, measure
from components.monitoring.naming import Naming
from components.monitoring.reference import Reference
from components.monitoring.table import from_rows

MakePipeline = Callable[[], beam.Pipeline]


def make_reference(
    paths: Sequence[str],
    output: Path,
    model: tuple[str, dict[str, Any]],
    naming: Naming,
    sampling: Sampling,
    staging: str,
    make_pipeline: MakePipeline | None = None,
) -> Reference:
    """Measures up to `sampling.images` images of each imager and writes the reference into the folder `output`.

    `model`: where it is, and what `model_facts` says of it. `staging`: a folder or URI that the workers reach.
    """
    found = images.find(paths)
    sources = images.institutions(paths, found)
    measured = measure(found, naming, sources, model[0], staging, sampling, make_pipeline)
    reference = references.make(measured, model[1])
    references.write(reference, output)
    return reference


def check_images(
    paths: Sequence[str],
    output: Path,
    reference: Reference,
    model: str,
    naming: Naming,
    limits: Limits,
    staging: str,
    days: float | None = None,
    seed: int = 0,
    make_pipeline: MakePipeline | None = None,
) -> dict[str, Any]:
    """Checks images against `reference`; writes `drift.json` and `drift.html` into `output`, returns the former.

    `days`: only images of files that changed so many days ago at most; that there are none is no error.
    """
    found = images.find(paths, days)
    sources = images.institutions(paths, found)
    sampling = Sampling(images=limits.most, seed=seed)
    nothing = Measured(from_rows([]), {}, [])
    measured = measure(found, naming, sources, model, staging, sampling, make_pipeline) if found else nothing
    table = reference.project(measured.table)
    failed = collections.Counter(imager for imager, _, _ in measured.failed)
    verdicts = check(reference, table, measured.seen, limits, seed, failed)
    outcome = report.as_json(verdicts, measured, reference, limits)
    report.write(output, outcome, verdicts, table, reference)
    return outcome


def model_facts(directory: Path) -> dict[str, Any]:
    """Returns `name`, `fingerprint` and `classes` of the classifier in `directory`; raises InputError without one."""
    from components.pusher.storage import fingerprint
    from marco_model.model_directory import PUBLISHED_NAME, class_names, read_metadata

    metadata = read_metadata(directory)
    return {
        "name": metadata.get("name", directory.name) if metadata else PUBLISHED_NAME,
        "fingerprint": fingerprint(directory),
        "classes": class_names(directory),
    }
