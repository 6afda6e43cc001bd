"""A drawn 96-well plate at three time points, for the tests and the pictures of reports in the docs.

    python tests/marco_scoring/plate_report/drawn_plate.py FOLDER

A drop keeps its shape from one time point to the next, since what is drawn depends on the seed and its number; what is
in it changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from marco_data.synthetic import Settings, draw

PLATE = "03c3"
DATES = ("2026-03-02", "2026-03-05", "2026-03-12")
FATES = {
    ("Clear", "Clear", "Clear"): 0.40,
    ("Precipitate", "Precipitate", "Precipitate"): 0.22,
    ("Clear", "Precipitate", "Precipitate"): 0.12,
    ("Clear", "Crystals", "Crystals"): 0.08,
    ("Clear", "Clear", "Crystals"): 0.08,
    ("Precipitate", "Precipitate", "Crystals"): 0.04,
    ("Clear", "Other", "Other"): 0.06,
}
"""What a drop shows at each date, and how many drops do."""


def fates(seed: int = 7, wells: int = 96) -> list[tuple[str, ...]]:
    """Returns what each well shows at the three dates."""
    rng = np.random.default_rng(seed)
    kinds = list(FATES)
    return [kinds[index] for index in rng.choice(len(kinds), wells, p=list(FATES.values()))]


def write(folder: Path, shorter_side: int, seed: int = 7, wells: int = 96) -> list[Path]:
    """Draws the plate into `folder`; returns the files, three per well: `03c3_A1_2026-03-02_ImagerDefaults_1.jpg` …"""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for place, shows in enumerate(fates(seed, wells)):
        for number, (date, name) in enumerate(zip(DATES, shows, strict=True), 1):
            settings = Settings(
                seed=seed, shorter_side=shorter_side, institutions={"GlaxoSmithKline": 1}, classes={name: 1}
            )
            well = f"{'ABCDEFGH'[place // 12]}{place % 12 + 1}"
            files.append(folder / f"{PLATE}_{well}_{date}_ImagerDefaults_{number}.jpg")
            files[-1].write_bytes(draw(place, settings).jpeg())
    return files


if __name__ == "__main__":
    print(f"{len(write(Path(sys.argv[1]), 720))} images in {sys.argv[1]}")
