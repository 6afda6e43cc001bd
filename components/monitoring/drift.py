"""The reference, and the check against it: which imagers' images have changed, and what changed first."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import decomposition, neighbors

from components.monitoring import measure, statistics, two_sample
from marco_data.name_tables import UNKNOWN
from marco_model import errors, store

FILE = "reference.json"
_IMAGES, _PROJECTION = "images.parquet", "projection.npz"
_DIMENSIONS = 32
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Reference:
    """A sample of each imager, its embeddings projected.

    `facts`: what `reference.json` holds: the model's `name`, `fingerprint` and `classes`, and how many images of each
    imager were `seen` and `measured`. `mean`: float32 [features]. `components`: float32 [d, features]. `table`: see
    `components.monitoring.statistics.Table`, embeddings float32 [n, d].
    """

    facts: dict[str, Any]
    mean: np.ndarray
    components: np.ndarray
    table: statistics.Table

    @property
    def classes(self) -> list[str]:
        """The classifier's."""
        return list(self.facts["model"]["classes"])

    def project(self, table: statistics.Table) -> statistics.Table:
        """Returns the table with its embeddings projected as the reference's were."""
        if not len(table):
            return dataclasses.replace(table, embedding=np.zeros((0, len(self.components)), np.float32))
        return dataclasses.replace(table, embedding=(table.embedding - self.mean) @ self.components.T)

    def require_model(self, fingerprint: str) -> None:
        """Raises InputError where `fingerprint` is another model's: its embeddings mean something else."""
        if fingerprint != self.facts["model"]["fingerprint"]:
            raise errors.InputError(
                f"the reference was made with another model, {self.facts['model']['name']}; give that one, or make a "
                "new reference: marco monitor reference"
            )


def make_reference(measured: measure.Measured, model: dict[str, Any]) -> Reference:
    """Makes a reference of measured images; `model` has `name`, `fingerprint` and `classes`.

    The projection keeps the directions in which the embeddings of all imagers together vary most (PCA). Raises
    InputError for fewer than two images.
    """
    table = measured.table
    if len(table) < 2:
        raise errors.InputError(
            f"{len(table)} images could be measured; give shards or folders with some hundreds an imager"
        )
    dimensions = min(_DIMENSIONS, len(table) - 1, table.embedding.shape[1])
    projection = decomposition.PCA(dimensions, svd_solver="randomized", random_state=0)
    fitted = projection.fit(table.embedding.astype(np.float64))
    count = {imager: int((table.imager == imager).sum()) for imager in table.imagers()}
    facts = {
        "format": _FORMAT,
        "model": model,
        "statistics": list(statistics.NAMES),
        "variance_kept": float(fitted.explained_variance_ratio_.sum()),
        "seen": dict(sorted(measured.seen.items())),
        "measured": count,
        "failed": len(measured.failed),
    }
    mean, components = (array.astype(np.float32) for array in (fitted.mean_, fitted.components_))
    reference = Reference(facts, mean, components, table)
    return dataclasses.replace(reference, table=reference.project(table))


def write_reference(reference: Reference, directory: Path) -> None:
    """Writes a reference into a new or empty folder, which appears whole, or in the place of an older reference."""
    if directory.exists() and any(directory.iterdir()) and not (directory / FILE).is_file():
        raise errors.InputError(f"{directory} holds something other than a reference; give a new folder")
    with store.whole_directory(directory, replace=True) as aside:
        statistics.write_table(reference.table, aside / _IMAGES)
        projection = store.npz({"mean": reference.mean, "components": reference.components})
        (aside / _PROJECTION).write_bytes(projection)
        (aside / FILE).write_text(json.dumps(reference.facts, indent=2) + "\n")


def read_reference(directory: str) -> Reference:
    """Reads a reference from a folder or a `gs://` URI; raises InputError if it has none of this version."""
    folder = directory.rstrip("/")
    missing = f"no reference in {directory}: make one with marco monitor reference"
    facts = store.read_json(f"{folder}/{FILE}", missing)
    if facts.get("format") != _FORMAT or facts.get("statistics") != list(statistics.NAMES):
        raise errors.InputError(
            f"the reference in {directory} is of another version; make it again: marco monitor reference"
        )
    damaged = f"the reference in {directory} is damaged ({{}}); make it again: marco monitor reference"
    with errors.translated(errors.InputError, damaged, Exception):
        projection = store.arrays(store.read_bytes(f"{folder}/{_PROJECTION}"))
        mean, components = projection["mean"], projection["components"]
    return Reference(facts, mean, components, statistics.read_table(f"{folder}/{_IMAGES}"))


CLEAN, ALARM, NEW, UNREADABLE = "clean", "alarm", "new imager", "unreadable"
TOO_FEW, FEW_BEFORE = "too few", "too few in the reference"
ALARMING, UNDECIDED = (ALARM, NEW, UNREADABLE), (TOO_FEW, FEW_BEFORE)

# A change of the images changes what the network sees of them, and that what it says: the cause is named first.
_CAUSES = (two_sample.STATISTIC, two_sample.STRANGERS, two_sample.EMBEDDING, two_sample.CLASSES, two_sample.CONFIDENCE)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One imager.

    Attributes:
        imager: its name.
        status: `clean`, `alarm`, `new imager`, `unreadable` (alarms too), `too few` or `too few in the reference`. An
            imager is new by its name, or because its images are not those of the imager that they are said to be of: a
            camera's images have one size.
        images, failed, seen: how many were measured, how many could not be, and how many there were.
        compared_with: the imager of the reference, or nothing where it was all of it together.
        before: how many images of the reference that is.
        resembles: the imager whose images of the reference are nearest to most of these, and to which share of them;
            only of a new imager.
        tests: alarms first, in the order cause to consequence, then by size.
    """

    imager: str
    status: str
    images: int
    failed: int
    seen: int
    compared_with: str
    before: int
    resembles: tuple[str, float] | None
    tests: tuple[two_sample.Test, ...]

    @property
    def alarming(self) -> bool:
        """Whether somebody should look."""
        return self.status in ALARMING

    @property
    def first(self) -> str:
        """What came first: `unreadable`, `new imager`, the name of a statistic or a kind of test; empty if nothing."""
        if self.status in (NEW, UNREADABLE):
            return self.status
        return next((test.name for test in self.tests if test.alarm), "")


def check(
    reference: Reference,
    table: statistics.Table,
    seen: Mapping[str, int],
    limits: two_sample.Limits | None = None,
    seed: int = 0,
    failed: Mapping[str, int] | None = None,
) -> list[Verdict]:
    """Compares the images of each imager with its reference; alarms come first.

    `table`: measured with the reference's model, embeddings projected. `seen`: how many images there were, `failed`:
    how many of those looked at could not be measured. An imager that the reference doesn't have is compared with all of
    it together, and so are images of an unknown imager; only the former counts as new.
    """
    limits, failed = limits or two_sample.Limits(), failed or {}
    imagers = sorted({*seen, *failed, *table.imagers()})
    compared = {imager: _samples(reference, table.of_imager(imager), imager, limits, seed) for imager in imagers}
    enough = [imager for imager, (new, old, _) in compared.items() if min(len(new), len(old)) >= limits.least]
    tests_of: dict[str, list[two_sample.Test]] = {}
    for number, imager in enumerate(enough):
        new, old, _ = compared[imager]
        count = two_sample.TESTS * len(enough)
        tests_of[imager] = two_sample.compare(new, old, limits, count, np.random.default_rng([seed, number]))
    adjusted = iter(two_sample.holm([test.p_value for tests in tests_of.values() for test in tests]))
    verdicts = []
    for imager, (new, old, name) in compared.items():
        judged = [
            dataclasses.replace(test, adjusted=p_value, alarm=p_value <= limits.alpha and test.effect >= test.limit)
            for test, p_value in zip(tests_of.get(imager, []), adjusted, strict=False)
        ]
        tests = tuple(sorted(judged, key=_order))
        lost = failed.get(imager, 0)
        unreadable = len(new) + lost >= limits.least and lost >= limits.unreadable * (len(new) + lost)
        is_new = len(new) > 0 and (_another_camera(tests) or (name == "" and imager != UNKNOWN))
        status = UNREADABLE if unreadable else NEW if is_new else _status(tests, new, limits)
        resembles = _resembles(reference.table, new) if status == NEW else None
        count = seen.get(imager, len(new) + lost)
        verdicts.append(Verdict(imager, status, len(new), lost, count, name, len(old), resembles, tests))
    return sorted(verdicts, key=lambda verdict: (not verdict.alarming, verdict.status in UNDECIDED, verdict.imager))


def _samples(
    reference: Reference, new: statistics.Table, imager: str, limits: two_sample.Limits, seed: int
) -> tuple[statistics.Table, statistics.Table, str]:
    """Returns the images to compare, those to compare with, and their imager's name."""
    known = imager in reference.table.imager
    tables = [new, reference.table.of_imager(imager) if known else reference.table]
    for index, table in enumerate(tables):
        if len(table) > limits.most:
            rows = np.random.default_rng(seed).choice(len(table), limits.most, replace=False)
            tables[index] = table.take(np.sort(rows))
    return tables[0], tables[1], imager if known else ""


def _order(test: two_sample.Test) -> tuple[float, ...]:
    cause = float(_CAUSES.index(test.kind))
    if test.name == "noise" and float(test.after) < float(test.before):  # type: ignore[arg-type]
        cause += 0.5  # What blurs an image smooths its noise.
    return not test.alarm, cause if test.alarm else 0, -test.effect / test.limit


def _another_camera(tests: Sequence[two_sample.Test]) -> bool:
    """Returns whether the images have another size, or look like none of the reference and no statistic says why."""
    alarms = [test for test in tests if test.alarm]
    if any(test.name in ("height", "width") for test in alarms):
        return True
    kinds = {test.kind for test in alarms}
    return two_sample.STRANGERS in kinds and two_sample.STATISTIC not in kinds


def _status(tests: Sequence[two_sample.Test], new: statistics.Table, limits: two_sample.Limits) -> str:
    if not tests:
        return FEW_BEFORE if len(new) >= limits.least else TOO_FEW
    return ALARM if any(test.alarm for test in tests) else CLEAN


def _resembles(old: statistics.Table, new: statistics.Table) -> tuple[str, float]:
    """Returns whose images the nearest neighbours are most often, and how often."""
    index = neighbors.NearestNeighbors(n_neighbors=1).fit(old.embedding)
    nearest = index.kneighbors(new.embedding, return_distance=False)[:, 0]
    names, counts = np.unique(old.imager[nearest].astype(str), return_counts=True)
    return str(names[counts.argmax()]), float(counts.max() / counts.sum())
