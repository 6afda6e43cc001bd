"""The rows of measured images: in memory as arrays, on disk as Parquet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.monitoring.statistics import NAMES

SCHEMA = pa.schema(
    [
        ("imager", pa.string()),
        ("name", pa.string()),
        ("reason", pa.string()),
        ("statistics", pa.list_(pa.float64())),
        ("embedding", pa.list_(pa.float32())),
        ("scores", pa.list_(pa.float32())),
        ("thumbnail", pa.binary()),
    ]
)
"""`reason` is empty where the image was measured; otherwise the lists and the thumbnail are."""


@dataclasses.dataclass(frozen=True)
class Table:
    """n measured images.

    Attributes:
        imager, name: str [n].
        statistics: float64 [n, len(NAMES)], see `components.monitoring.statistics`.
        embedding: float32 [n, d], as the classifier gives them or projected.
        scores: float32 [n, classes], rows sum to 1.
        thumbnail: JPEG bytes [n], empty for most.
    """

    imager: np.ndarray
    name: np.ndarray
    statistics: np.ndarray
    embedding: np.ndarray
    scores: np.ndarray
    thumbnail: np.ndarray

    def __len__(self) -> int:
        return len(self.imager)

    def take(self, rows: np.ndarray) -> Table:
        """Returns the rows of a mask or of indices."""
        return Table(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})

    def of(self, imager: str) -> Table:
        """Returns the rows of an imager."""
        return self.take(self.imager == imager)

    @property
    def predicted(self) -> np.ndarray:
        """Index of the class with the highest score, int [n]."""
        return self.scores.argmax(axis=1)

    def imagers(self) -> list[str]:
        """Returns the imagers by name."""
        return sorted(set(self.imager.tolist()))


def from_rows(rows: list[dict[str, Any]]) -> Table:
    """Makes a table of measured rows of `SCHEMA`, in the order of imager and name."""
    rows = sorted(rows, key=lambda row: (row["imager"], row["name"]))

    def column(name: str, kind: Any) -> np.ndarray:
        values = np.empty(len(rows), object)
        values[:] = [row[name] for row in rows]
        return values if kind is object else np.array(values.tolist(), kind).reshape(len(rows), -1 if rows else 0)

    return Table(
        imager=column("imager", object),
        name=column("name", object),
        statistics=column("statistics", np.float64) if rows else np.zeros((0, len(NAMES))),
        embedding=column("embedding", np.float32),
        scores=column("scores", np.float32),
        thumbnail=column("thumbnail", object),
    )


def write(table: Table, path: Path) -> None:
    """Writes a table as Parquet."""
    columns = [
        table.imager.tolist(),
        table.name.tolist(),
        [""] * len(table),
        table.statistics.tolist(),
        table.embedding.tolist(),
        table.scores.tolist(),
        table.thumbnail.tolist(),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), path)


def read(data: bytes) -> Table:
    """Reads what `write` wrote."""
    return from_rows(pq.read_table(pa.BufferReader(data)).to_pylist())
