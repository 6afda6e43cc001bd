"""What a push came to, in the `PushedModel` artifact: `pushed.json`."""

from __future__ import annotations

import json
import os
from typing import Any

from marco_data.files import read_bytes

RECORD_FILE = "pushed.json"


def pushed(pushed_model_uri: str) -> dict[str, Any]:
    """Returns `pushed` (bool), `path` and `version` of the published model, `registered_model`, `registered_version`.

    What does not apply is None.
    """
    path = os.path.join(pushed_model_uri, RECORD_FILE)  # noqa: PTH118 - may be an object-store URI
    return dict(json.loads(read_bytes(path)))


def published(pushed_model_uri: str) -> str | None:
    """Returns the folder or `gs://` URI of the published version, or None if the model was not pushed."""
    path = pushed(pushed_model_uri)["path"]
    return None if path is None else str(path)
