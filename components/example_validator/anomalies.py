"""Anomalies in words."""

from __future__ import annotations

from typing import Any


def sentence(split: str, anomalies: Any, statistics: Any) -> str:
    """Returns one sentence that names every feature of `split` with its anomaly, or an empty string if there is none.

    `anomalies` and `statistics` are TFDV's of one split. TFDV itself finds nothing wrong with no examples at all.
    """
    if not sum(dataset.num_examples for dataset in statistics.datasets):
        return f"split {split}: it has no examples"
    found = [
        f"{name} - {info.description.rstrip('. ') or info.short_description}"
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        found.append(f"the split as a whole - {anomalies.dataset_anomaly_info.description.rstrip('. ')}")
    return f"split {split}: {'; '.join(found)}" if found else ""


def complaint(sentences: list[str]) -> str:
    """Returns what the gate says of all splits."""
    return (
        f"examples do not fit the curated schema ({' | '.join(sentences)}); mend the data or its ingest settings, "
        "or, if the data is right, the configured institutions and imagers or components/schema/schema.pbtxt"
    )
