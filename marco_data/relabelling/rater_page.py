"""The page that experts label in: static, from a file, no server; it knows no old labels."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marco_data.relabelling.export import Item


def write_page(path: Path, items: Sequence[Item], classes: Sequence[str], raters: Sequence[str]) -> None:
    """Writes the page beside the folder of images.

    Keys 1, 2, … choose a class; answers are kept by the browser and saved as a sheet, which the page can load again.
    """
    told = {
        "name": hashlib.sha256("".join(f"{item.image_id} {item.file}\n" for item in items).encode()).hexdigest()[:16],
        "classes": list(classes),
        "raters": list(raters),
        "items": [[str(item.image_id), item.file] for item in items],
    }
    template = importlib.resources.files(__package__).joinpath("rater_page.html").read_text(encoding="utf-8")
    # The text stands in a script element, which "</" could end.
    path.write_text(template.replace("__TOLD__", json.dumps(told).replace("</", "<\\/")), encoding="utf-8")
