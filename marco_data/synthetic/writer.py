"""Writes a set of synthetic drops as MARCO shards, in parallel; the bytes depend on the settings only."""

import collections
import concurrent.futures
import ctypes
import dataclasses
import itertools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from marco_data import contract, name_tables, places, progress, shards
from marco_data.synthetic import render
from marco_data.synthetic.plan import KINDS, Plan, Settings, plan
from marco_model import errors, labels, store

MANIFEST, DROPS_FILE = "synthetic.json", "drops.csv"
DROPS_COLUMNS = ("drop", "plate", "well", "course", "inspections", "first_crystals", "nucleation")
SHARD_IMAGES = 1024
# Raised whenever the same settings draw other images than before, so that old sets are not taken for new ones.
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
    """Writes `images` synthetic drops to `directory` and returns the manifest, which is also its `synthetic.json`.

    The folder gets shards `train-00001-of-…` and `test-00001-of-…`, `sources.csv`, `labels-norm.csv` and
    `labels-raw.csv` (the kinds drawn), for drops over time also `drops.csv`, their courses. It appears when it is
    complete. If it already is exactly this set, nothing happens. With `overwrite` another synthetic set is replaced; a
    folder with other content is never changed.

    settings: the parameters; the defaults if None. shard_images: most images per shard. processes: how many draw.
    Raises `InputError` for a bad number or a folder with other content.
    """
    settings = settings or Settings()
    for name, value in (("images", images), ("shard_images", shard_images), ("processes", processes)):
        if value < 1:
            raise errors.InputError(f"{name} is {value}; give 1 or more")
    directory = Path(directory)
    plans = [plan(settings, index) for index in range(images)]
    manifest = manifest_of(images, settings, shard_images)
    if directory.exists() and any(directory.iterdir()):
        existing = _read_manifest(directory)
        if existing == manifest and _is_complete(directory, manifest):
            return manifest
        if existing is None:
            raise errors.InputError(
                f"{directory} holds something else than a synthetic set; give an empty or new folder"
            )
        if not overwrite and existing != manifest:
            raise errors.InputError(f"{directory} holds another synthetic set; give a new folder, or remove it first")
    with store.whole_directory(directory, replace=True) as folder:
        with progress.progress("synthesizing", images) as advance:
            for split in ("train", "test"):
                chosen = [drop for drop in plans if drop.split == split]
                records = _records(chosen, settings, min(processes, images), advance)
                shards.write_shards(folder, split, records, shard_images)
        raw_labels = {number: kind.name for number, kind in enumerate(KINDS)}
        name_tables.write_tables(folder, classes=dict(enumerate(labels.CLASSES)), raw_labels=raw_labels)
        if settings.inspections > 1:
            name_tables.write_csv(folder / DROPS_FILE, DROPS_COLUMNS, drop_rows(plans))
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def drop_rows(plans: Sequence[Plan]) -> list[tuple[Any, ...]]:
    """Returns the courses of drops over time as rows of `DROPS_COLUMNS`, from the plans of their images.

    `first_crystals` counts inspections from 1 and is empty if no picture shows crystals; `nucleation` is a time, in
    inspections after the first, empty if nothing nucleates.
    """
    rows = []
    for drop, images in itertools.groupby(plans, key=lambda image: image.drop):
        first, *rest = images
        place, timeline, count = places.place_of(first.filename), first.timeline, 1 + len(rest)
        assert timeline
        seen = timeline.first_crystals
        since = seen + 1 if seen is not None and seen < count else ""
        nucleation = round(timeline.nucleation, 3) if timeline.course.crystals else ""
        rows.append((drop, place.plate, place.well, timeline.course.name, count, since, nucleation))
    return rows


def manifest_of(images: int, settings: Settings, shard_images: int = SHARD_IMAGES) -> dict[str, Any]:
    """Returns the manifest of a set: its parameters, its counts, and which images are mislabelled on purpose."""
    plans = [plan(settings, index) for index in range(images)]
    parameters = dataclasses.asdict(settings)
    if settings.inspections == 1:
        del parameters["inspections"]  # As in sets from before there were drops over time.
    return {
        "drawing": DRAWING,
        "images": len(plans),
        "shard_images": shard_images,
        "settings": parameters,
        "counts": {
            "split": _counts(drop.split for drop in plans),
            "class": _counts(labels.CLASSES[drop.label] for drop in plans),
            "institution": _counts(drop.imager.institution for drop in plans),
            "kind": _counts(KINDS[drop.kind].name for drop in plans),
        },
        "label_noise": {
            str(drop.index): [labels.CLASSES[drop.shown], labels.CLASSES[drop.label]] for drop in plans if drop.noisy
        },
    }


def _is_complete(directory: Path, manifest: Mapping[str, Any]) -> bool:
    """Returns whether a set still has all its shards."""
    totals = {name: -(-count // manifest["shard_images"]) for name, count in manifest["counts"]["split"].items()}
    return all(
        (directory / f"{split}-{number:05d}-of-{total:05d}").is_file()
        for split, total in totals.items()
        for number in range(1, total + 1)
    )


def _counts(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(names).items()))


def _read_manifest(directory: Path) -> dict[str, Any] | None:
    """Returns the manifest of the synthetic set in `directory`, or None if it holds no such set."""
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest


def _records(plans: list[Plan], settings: Settings, processes: int, advance: Callable[..., None]) -> Iterator[bytes]:
    """Yields the serialized examples of images, drawn in parallel, in their order; equal images give equal bytes."""
    for drop, (encoded, height, width) in zip(plans, jpegs([d.index for d in plans], settings, processes), strict=True):
        example = contract.build_example(
            encoded=encoded,
            image_format="JPEG",
            height=height,
            width=width,
            filename=drop.filename,
            image_id=drop.index,
            label=drop.label,
            label_text=labels.CLASSES[drop.label],
            label_raw=drop.kind,
            source=name_tables.INSTITUTIONS.index(drop.imager.institution),
        )
        yield bytes(example.SerializeToString(deterministic=True))
        advance(1)


def jpegs(indices: list[int], settings: Settings, processes: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (JPEG, height, width) of the images `indices` in their order; draws a bounded number ahead."""
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
    """Limits a process to one thread and keeps memory between images; returning it took a third of the drawing time.

    It ends with the process that started it, also if that is killed: a pool's processes would wait for work for ever.
    """
    import cv2

    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # Only glibc has it.
        for parameter, value in ((_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 1 << 26), (_M_MMAP_THRESHOLD, 1 << 30)):
            mallopt(parameter, value)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _draw_chunk(indices: list[int], settings: Settings) -> list[tuple[bytes, int, int]]:
    drops = (render.draw(index, settings) for index in indices)
    return [(drop.jpeg(), drop.image.shape[0], drop.image.shape[1]) for drop in drops]
