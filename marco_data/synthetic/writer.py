"""Writes a set of synthetic drops as MARCO shards, in parallel, so that the bytes depend on the settings alone."""

from __future__ import annotations

import concurrent.futures
import ctypes
import dataclasses
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marco_data.contract import build_example
from marco_data.name_tables import INSTITUTIONS, write_sources
from marco_data.progress import progress
from marco_data.synthetic.plan import KINDS, Plan, Settings, plan
from marco_data.synthetic.render import draw
from marco_model.errors import InputError
from marco_model.labels import CLASSES

MANIFEST = "synthetic.json"
SHARD_IMAGES = 1024
# Raised whenever the same settings draw other images than before, so that sets of old are not taken for new ones.
DRAWING = 4
_CHUNK = 8
# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def synthesize(
    directory: Path | str,
    images: int,
    settings: Settings | None = None,
    *,
    shard_images: int = SHARD_IMAGES,
    processes: int = 2,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes `images` synthetic drops to `directory` and returns the manifest, which is `directory`/synthetic.json too.

    The folder holds shards `train-00001-of-…` and `test-00001-of-…`, `sources.csv`, `labels-norm.csv` and
    `labels-raw.csv` (the kinds drawn). It is written aside and renamed. If it already holds exactly this set nothing is
    done; with `overwrite` another synthetic set is replaced, and anything else is never touched.

    settings: what is drawn; its defaults if None. shard_images: images a shard at most. processes: how many draw.
    Raises InputError for a bad number or a folder that holds something else.
    """
    settings = settings or Settings()
    for name, value in (("images", images), ("shard_images", shard_images), ("processes", processes)):
        if value < 1:
            raise InputError(f"{name} is {value}; give 1 or more")
    directory = Path(directory)
    plans = [plan(settings, index) for index in range(images)]
    manifest = manifest_of(images, settings, shard_images)
    if directory.exists() and any(directory.iterdir()):
        held = _held(directory)
        if held == manifest:
            return manifest
        if held is None:
            raise InputError(f"{directory} holds something else than a synthetic set; give an empty or new folder")
        if not overwrite:
            raise InputError(f"{directory} holds another synthetic set; give a new folder, or remove it first")
    aside = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _write_shards(aside, plans, settings, shard_images, min(processes, images))
    _write_tables(aside)
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    if directory.exists():
        shutil.rmtree(directory)
    aside.rename(directory)
    return manifest


def manifest_of(images: int, settings: Settings, shard_images: int = SHARD_IMAGES) -> dict[str, Any]:
    """Returns what a set is: its parameters, its counts, and which images are filed wrongly on purpose."""
    plans = [plan(settings, index) for index in range(images)]
    manifest = {
        "drawing": DRAWING,
        "images": len(plans),
        "shard_images": shard_images,
        "settings": dataclasses.asdict(settings),
        "counts": {
            "split": _counts(what.split for what in plans),
            "class": _counts(CLASSES[what.label] for what in plans),
            "institution": _counts(what.imager.institution for what in plans),
            "kind": _counts(KINDS[what.kind].name for what in plans),
        },
        "label_noise": {str(what.index): [CLASSES[what.shown], CLASSES[what.label]] for what in plans if what.noisy},
    }
    return json.loads(json.dumps(manifest))


def _counts(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _held(directory: Path) -> dict[str, Any] | None:
    """Returns the manifest of the synthetic set in `directory`, or None if it holds none."""
    try:
        return json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def _write_shards(directory: Path, plans: list[Plan], settings: Settings, shard_images: int, processes: int) -> None:
    """Draws all images in parallel and writes each split's shards in the order of the images."""
    import tensorflow as tf

    with progress("synthesizing", len(plans)) as advance:
        for split in ("train", "test"):
            chosen = [what.index for what in plans if what.split == split]
            shards = -(-len(chosen) // shard_images)
            drawn = jpegs(chosen, settings, processes)
            for shard in range(shards):
                path = directory / f"{split}-{shard + 1:05d}-of-{shards:05d}"
                with tf.io.TFRecordWriter(str(path)) as writer:
                    for index in chosen[shard * shard_images : (shard + 1) * shard_images]:
                        encoded, height, width = next(drawn)
                        writer.write(_record(plans[index], encoded, height, width))
                        advance(1)


def jpegs(indices: list[int], settings: Settings, processes: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (JPEG, height, width) of the images `indices` in their order; draws a bounded number of them ahead."""
    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    if processes == 1:
        for chunk in chunks:
            yield from _draw_chunk(chunk, settings)
        return
    # A forked child of a process that has TensorFlow's threads may hang: start fresh ones.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, initializer=_set_up_process) as pool:
        ahead: list[concurrent.futures.Future[list[tuple[bytes, int, int]]]] = []
        for chunk in chunks:
            ahead.append(pool.submit(_draw_chunk, chunk, settings))
            if len(ahead) > 4 * processes:
                yield from ahead.pop(0).result()
        for future in ahead:
            yield from future.result()


def _set_up_process() -> None:
    """One thread a process, and memory kept between images: to give it back each time took a third of the drawing."""
    import cv2

    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc alone has it
        for parameter, value in ((_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 1 << 26), (_M_MMAP_THRESHOLD, 1 << 30)):
            mallopt(parameter, value)


def _draw_chunk(indices: list[int], settings: Settings) -> list[tuple[bytes, int, int]]:
    """Draws and encodes images one after another."""
    drops = (draw(index, settings) for index in indices)
    return [(drop.jpeg(), drop.image.shape[0], drop.image.shape[1]) for drop in drops]


def _record(what: Plan, encoded: bytes, height: int, width: int) -> bytes:
    """Returns the serialized example of one image; equal images give equal bytes."""
    example = build_example(
        encoded=encoded,
        image_format="JPEG",
        height=height,
        width=width,
        filename=what.filename,
        image_id=what.index,
        label=what.label,
        label_text=CLASSES[what.label],
        label_raw=what.kind,
        source=INSTITUTIONS.index(what.imager.institution),
    )
    return example.SerializeToString(deterministic=True)


def _write_tables(directory: Path) -> None:
    """Writes the names behind the numbers: institutions, classes, and the kinds as the raw labels."""
    write_sources(directory)
    for name, values in (("labels-norm.csv", CLASSES), ("labels-raw.csv", [kind.name for kind in KINDS])):
        lines = ["id,name", *(f"{number},{value}" for number, value in enumerate(values))]
        (directory / name).write_text("\n".join(lines) + "\n")
