"""Scores drop images, explains scores, draws plates and serves a classifier, without TFX, Beam or MLflow.

    import marco_scoring

    table = marco_scoring.score_images(["plates/03c3"])  # files, folders or bytes; the classifier published in 2018
    table.to_pandas()                                    # one row per image, the columns of `marco predict`
    table.failures                                       # path and reason of images that could not be scored

The names below are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marco_scoring.scored_images import ScoredImages, score_images

__all__ = ["ScoredImages", "score_images"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.scored_images"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
