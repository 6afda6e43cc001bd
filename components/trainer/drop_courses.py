"""Fits the time course of an exported model to the drops of its training that have pictures of several inspections."""

import json
import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from marco_data import contract, places
from marco_data.progress import progress
from marco_model import (
    errors,
    example_files,
    model_directory,
    onnx_network,
    pixels,
    preprocessing,
    store,
    time_course,
    training_input,
)
from marco_scoring import plates

log = logging.getLogger(__name__)

ENOUGH_DROPS, ENOUGH_CRYSTALS = 50, 10
"""Drops with several pictures that each split must have, and those with crystals among them."""
_MOST_DROPS = 1000


def add(
    directory: str,
    classes: Sequence[str],
    train: example_files.RecordIndex,
    validation: example_files.RecordIndex,
) -> None:
    """Adds `time_course.FILE` to the exported model in `directory`; says why where the data do not allow it.

    Drops are known by plate and well, and their inspections by number or date, as names of files state them and
    `image/plate`. At most `_MOST_DROPS` of each split, evenly spread, pass the exported network. Drops of both
    splits, which a set's own splits may have, are not held out: they count for training alone.
    """
    path = f"{directory}/{onnx_network.MODEL}"
    try:
        crystals = plates.crystal_classes(classes)
    except errors.InputError:
        log.warning("There will be no time course: no class is named after crystals, of %s", ", ".join(classes))
        return
    if not store.exists(path):
        log.warning("There will be no time course, which needs an ONNX model")
        return
    taken = record_places(train)
    trained = set(map(plates.drop_of, taken))
    splits = [(train, _several(taken)), (validation, _several(record_places(validation), trained))]
    if not _enough([len(drops) for _, drops in splits]):
        return
    metadata = json.loads(store.read_bytes(f"{directory}/{model_directory.METADATA}"))
    network = onnx_network.OnnxNetwork(store.read_bytes(path), pixels.Preparation.recorded(metadata))
    followed: list[list[time_course.Series]] = []
    with progress("Following drops", sum(len(drops) for _, drops in splits), "drops") as advance:
        for index, drops in splits:
            followed.append(list(read_series(network, index, _counted(drops, advance), crystals)))
    training, held_out = followed
    if not _enough([len(drops) for drops in followed]):  # Without those whose labels are hidden.
        return
    if min(sum(int(series.crystals.any()) for series in drops) for drops in (training, held_out)) < ENOUGH_CRYSTALS:
        log.warning("There will be no time course: crystals come to fewer than %d drops of a split", ENOUGH_CRYSTALS)
        return
    course = time_course.fit(training, held_out, crystals, float(metadata["temperature"]))
    log.info(
        "Crystals have come to a drop at a probability of %.3f: by the next inspection in %d of %d held-out drops",
        course.thresholds[1],
        time_course.alarms_in_time(course, [drop._replace(views=course.project(drop.views)) for drop in held_out]),
        sum(bool(drop.crystals.any()) for drop in held_out),
    )
    store.write_bytes(f"{directory}/{time_course.FILE}", course.to_bytes())


def _enough(drops: Sequence[int]) -> bool:
    """Says whether there are enough drops in training and validation, and in the log why not."""
    if min(drops) < ENOUGH_DROPS:
        log.warning(
            "There will be no time course: training and validation have %d and %d drops with labelled pictures of "
            "several inspections, by the names of their files, and %d each are needed",
            *drops,
            ENOUGH_DROPS,
        )
    return min(drops) >= ENOUGH_DROPS


def _counted(drops: Iterable[plates.Drop], advance: Callable[[int], None]) -> Iterator[plates.Drop]:
    for drop in drops:
        yield drop
        advance(1)


def record_places(records: example_files.RecordIndex) -> list[places.Place]:
    """Returns where and when each record's image was taken, in the order of the records."""
    specification = {name: tf.io.FixedLenFeature([], tf.string, "") for name in contract.PLACE_FEATURES}
    found = []
    for parsed in preprocessing.parsed_records(records.files, specification):
        texts = ([text.decode("utf-8", "replace") for text in parsed[name]] for name in contract.PLACE_FEATURES)
        for filename, plate, institution in zip(*texts, strict=True):
            place = places.place_of(filename)
            # Two institutions may have plates of one name.
            found.append(place._replace(plate=plate or place.plate, folder=institution))
    return found


def _several(images: Sequence[places.Place], trained: Collection[Hashable] = ()) -> list[plates.Drop]:
    """Returns at most `_MOST_DROPS` drops with pictures of several inspections, evenly spread and not `trained`."""
    drops = [drop for drop in plates.drops_over_time(images) if len(drop) > 1]
    drops = [drop for drop in drops if plates.drop_of(images[drop[0][0]]) not in trained]
    chosen = np.unique(np.linspace(0, len(drops) - 1, _MOST_DROPS).astype(int)) if drops else ()
    return [drops[number] for number in chosen]


def read_series(
    network: onnx_network.OnnxNetwork,
    records: example_files.RecordIndex,
    drops: Iterable[plates.Drop],
    crystals: Sequence[int],
) -> Iterator[time_course.Series]:
    """Yields the pictures of each drop with their features, and by their labels whether crystals have come.

    Drops with a label that is hidden from the training are passed over.

    `crystals`: indices of the classes that mean crystals. Of several pictures of an inspection the mean is taken.
    """
    read = tf.function(training_input.reader(records), input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)
    for drop in drops:
        examples = [read(number) for numbers in drop for number in numbers]
        labels = np.array([int(training_input.class_of(label)) for _, label in examples])
        if (labels == training_input.PADDING).any():
            continue
        scores, _, views = network.described([encoded.numpy() for encoded, _ in examples])
        starts = np.cumsum([0, *(len(numbers) for numbers in drop[:-1])])
        counts = np.diff([*starts, len(labels)])[:, None]
        come = np.logical_or.accumulate(np.logical_or.reduceat(np.isin(labels, crystals), starts))
        views, scores = (np.add.reduceat(values, starts) / counts for values in (views, scores))
        yield time_course.Series(views, scores, come)
