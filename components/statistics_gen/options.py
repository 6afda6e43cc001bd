"""Statistics over everything but the image bytes."""

from __future__ import annotations

from typing import Any

from components.schema import curated


def stats_options() -> Any:
    """Returns the `tfdv.StatsOptions` for ExampleGen's output, as TFX's `StatisticsGen(stats_options=…)` takes it.

    Image bytes are left out: their histograms and top values tell nothing, and would carry images into the metadata.
    """
    import tensorflow_data_validation as tfdv

    return tfdv.StatsOptions(feature_allowlist=curated.statistics_features())
