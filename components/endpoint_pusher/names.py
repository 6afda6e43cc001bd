"""Names and labels by which what was made on Vertex AI is found again."""

from __future__ import annotations

import hashlib
import re

MANAGED = "marco-pipeline"
FINGERPRINT, CONTAINER, RUN = "marco-fingerprint", "marco-container", "marco-run"
"""Labels of a model's version: the starts of the SHA-256 of its files and of what serves them, and its MLflow run."""

SERVING, PREVIOUS, WITHDRAWN = "marco-serving", "marco-previous", "marco-withdrawn"
"""Labels of an endpoint: the deployed model that is proven, the version before it, and `VERSION-ID`, the version that a
rollback took back and the deployed model that serves instead."""

DEFAULT, SERVED = "default", "served-"
"""Aliases of a model's version: the one promoted last; with the version's number, one that was ever promoted."""

CHECK = "-check"
"""What the name of the endpoint ends in on which a version is checked before anybody else asks it."""


def label(text: str) -> str:
    """Returns `text` as a label's value: up to 63 small letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def identity(name: str) -> str:
    """Returns a resource's id for a display name, always the same: made twice, the second is refused.

    Vertex AI takes up to 63 small letters, digits and `-`, with a letter first and no `-` last.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if plain == name and plain[:1].isalpha() and len(plain) <= 63:
        return plain
    return f"m-{plain[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".replace("--", "-")


def deployed_id(version: str, etag: str) -> str:
    """Returns the id under which a version is deployed on an endpoint as it is now: ten digits.

    Asked for twice, the second is refused; after the endpoint has changed the id is another, so none is used again.
    """
    number = int(hashlib.sha256(f"{version} {etag}".encode()).hexdigest(), 16)
    return str(10**9 + number % (9 * 10**9))


def last(resource: str) -> str:
    """Returns the last part of a resource's name, without a version: projects come back as numbers."""
    return resource.rsplit("/", 1)[-1].partition("@")[0]
