"""What images looked like when the classifier was judged: a sample of each imager, embeddings projected."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from components.monitoring import table as tables
from components.monitoring.measure import Measured
from components.monitoring.statistics import NAMES
from components.monitoring.table import Table
from marco_data.files import exists, read_bytes
from marco_model.errors import InputError

FILE = "reference.json"
_IMAGES, _PROJECTION = "images.parquet", "projection.npz"
_DIMENSIONS = 32
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Reference:
    """A sample of each imager, its embeddings projected.

    `facts`: what `reference.json` holds: the model's `name`, `fingerprint` and `classes`, and how many images of each
    imager were `seen` and `measured`. `mean`: float32 [features]. `components`: float32 [d, features]. `table`: see
    `components.monitoring.table.Table`, embeddings float32 [n, d].
    """

    facts: dict[str, Any]
    mean: np.ndarray
    components: np.ndarray
    table: Table

    @property
    def classes(self) -> list[str]:
        """The classifier's."""
        return list(self.facts["model"]["classes"])

    def project(self, table: Table) -> Table:
        """Returns the table with its embeddings projected as the reference's were."""
        if not len(table):
            return dataclasses.replace(table, embedding=np.zeros((0, len(self.components)), np.float32))
        return dataclasses.replace(table, embedding=(table.embedding - self.mean) @ self.components.T)

    def require_model(self, fingerprint: str) -> None:
        """Raises InputError where `fingerprint` is another model's: its embeddings mean something else."""
        if fingerprint != self.facts["model"]["fingerprint"]:
            raise InputError(
                f"the reference was made with another model, {self.facts['model']['name']}; give that one, or make a "
                "new reference: marco monitor reference"
            )


def make(measured: Measured, model: dict[str, Any]) -> Reference:
    """Makes a reference of measured images; `model` has `name`, `fingerprint` and `classes`.

    The projection keeps the directions in which the embeddings of all imagers together vary most (PCA). Raises
    InputError for fewer than two images.
    """
    from sklearn.decomposition import PCA

    table = measured.table
    if len(table) < 2:
        raise InputError(f"{len(table)} images could be measured; give shards or folders with some hundreds an imager")
    dimensions = min(_DIMENSIONS, len(table) - 1, table.embedding.shape[1])
    fitted = PCA(dimensions, svd_solver="randomized", random_state=0).fit(table.embedding.astype(np.float64))
    count = {imager: int((table.imager == imager).sum()) for imager in table.imagers()}
    facts = {
        "format": _FORMAT,
        "model": model,
        "statistics": list(NAMES),
        "variance_kept": float(fitted.explained_variance_ratio_.sum()),
        "seen": dict(sorted(measured.seen.items())),
        "measured": count,
        "failed": len(measured.failed),
    }
    mean, components = (array.astype(np.float32) for array in (fitted.mean_, fitted.components_))
    reference = Reference(facts, mean, components, table)
    return dataclasses.replace(reference, table=reference.project(table))


def write(reference: Reference, directory: Path) -> None:
    """Writes a reference into a new or empty folder, which appears whole, or in the place of an older reference."""
    if directory.exists() and any(directory.iterdir()) and not (directory / FILE).is_file():
        raise InputError(f"{directory} holds something else than a reference; give a new folder")
    aside = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tables.write(reference.table, aside / _IMAGES)
    np.savez(aside / _PROJECTION, mean=reference.mean, components=reference.components)
    (aside / FILE).write_text(json.dumps(reference.facts, indent=2) + "\n")
    if directory.exists():
        shutil.rmtree(directory)
    aside.rename(directory)


def read(directory: str) -> Reference:
    """Reads a reference from a folder or a `gs://` URI; raises InputError where there is none of this version."""
    folder = directory.rstrip("/")
    if not exists(f"{folder}/{FILE}"):
        raise InputError(f"no reference in {directory}: make one with marco monitor reference")
    facts = json.loads(read_bytes(f"{folder}/{FILE}"))
    if facts.get("format") != _FORMAT or facts["statistics"] != list(NAMES):
        raise InputError(f"the reference in {directory} is of another version; make it anew: marco monitor reference")
    with np.load(io.BytesIO(read_bytes(f"{folder}/{_PROJECTION}"))) as arrays:
        mean, components = arrays["mean"], arrays["components"]
    return Reference(facts, mean, components, tables.read(read_bytes(f"{folder}/{_IMAGES}")))
