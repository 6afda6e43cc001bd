"""What a report keeps of each image while `pipelines.prediction` scores: scores and a thumbnail, not the image."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pipelines.plate_report.thumbnails import Thumbnail, thumbnail

if TYPE_CHECKING:
    import numpy as np

MOST_WAITING = 16
"""Images whose thumbnails are not yet made: what is held of full images, beside the batches being read and scored."""


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """A file, its scores, float32 [classes], and its thumbnail if one could be made."""

    path: Path
    scores: np.ndarray
    thumbnail: Thumbnail | None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A file that could not be scored, and why."""

    path: Path
    reason: str


class Collector:
    """An observer for `pipelines.prediction.predict`; a context, on whose end all thumbnails are made.

    Thumbnails are made on a thread of their own, while the next batch is scored.
    """

    def __init__(self, thumbnail_size: int) -> None:
        self.failures: list[Failure] = []
        self._size = thumbnail_size
        self._scored: list[tuple[Path, np.ndarray]] = []
        self._thumbnails: list[Future[Thumbnail | None]] = []
        self._maker = ThreadPoolExecutor(1)

    def __call__(self, path: Path, image: bytes | None, result: np.ndarray | str) -> None:
        """Takes one file; waits where too many thumbnails are still to be made."""
        if isinstance(result, str) or image is None:
            self.failures.append(Failure(path, str(result)))
            return
        self._scored.append((path, result))
        self._thumbnails.append(self._maker.submit(thumbnail, image, self._size))
        if len(self._thumbnails) > MOST_WAITING:
            self._thumbnails[-MOST_WAITING - 1].result()

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._maker.shutdown(wait=True, cancel_futures=kind is not None)

    @property
    def images(self) -> list[ScoredImage]:
        """What was scored, in its order."""
        return [
            ScoredImage(path, scores, made.result())
            for (path, scores), made in zip(self._scored, self._thumbnails, strict=True)
        ]
