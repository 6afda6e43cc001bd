"""The curated schema, completed with the domains that a configuration knows."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Any

from marco_data import contract
from marco_model.labels import CLASSES

STATISTICS_ENVIRONMENT = "STATISTICS"


def schema_text() -> str:
    """Returns the text of `schema.pbtxt`, wherever this package is installed."""
    return importlib.resources.files(__package__).joinpath("schema.pbtxt").read_text(encoding="utf-8")


def fingerprint() -> str:
    """Returns the SHA-256 of the curated schema, which belongs into the cache key of whoever writes it."""
    return hashlib.sha256(schema_text().encode()).hexdigest()


def curated_schema(
    institutions: Sequence[str] = (), imagers: Sequence[str] = (), classes: Sequence[str] = CLASSES
) -> Any:
    """Returns the `tensorflow_metadata` Schema; names given become domains, no names mean that any are fine.

    `classes`, in the order of their indices, are the domains of `image/class/label` and `image/class/text`.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = text_format.Parse(schema_text(), schema_pb2.Schema())
    domains = {contract.INSTITUTION: institutions, contract.IMAGER: imagers}
    for feature in schema.feature:
        if domains.get(feature.name):
            feature.string_domain.value.extend(sorted(set(domains[feature.name])))
        elif feature.name == contract.LABEL:
            feature.int_domain.max = len(classes) - 1
        elif feature.name == contract.LABEL_TEXT:
            feature.string_domain.value[:] = classes
    return schema


def statistics_features() -> list[str]:
    """Returns the features that statistics are taken of: all of the schema but the image bytes."""
    return [
        feature.name for feature in curated_schema().feature if STATISTICS_ENVIRONMENT not in feature.not_in_environment
    ]
