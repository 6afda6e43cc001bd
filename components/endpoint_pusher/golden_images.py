"""Where golden images come from: a folder or bucket, the evaluation split, or a pencil."""

from __future__ import annotations

import dataclasses
import io
import itertools
import tempfile
from pathlib import Path, PurePosixPath

from components.endpoint_pusher.golden import MAX_BYTES, Image
from marco_data import contract, object_store
from marco_data.image_files import ENDINGS, encoded_image, find_images
from marco_model.errors import InputError
from marco_model.labels import CLASSES

_LOOKED_AT = 2_000
"""Records of the evaluation split among which golden images are chosen."""
_SEED = 20180620


def in_place(place: str) -> list[Image]:
    """Returns the images below a folder or `gs://` URI; a folder that is named as a class says what those in it show.

    Raises `InputError` where there are none, or where one is too large for an online request.
    """
    if object_store.is_object(place):
        with tempfile.TemporaryDirectory() as folder:
            root = place.rstrip("/")
            for one in object_store.list_objects(f"{root}/"):
                if one.uri.lower().endswith(ENDINGS):
                    object_store.download(one.uri, Path(folder) / one.uri.removeprefix(f"{root}/"))
            return _below(Path(folder), place)
    return _below(Path(place), place)


def _below(folder: Path, place: str) -> list[Image]:
    found = []
    for path in find_images([folder]):
        content = encoded_image(path)
        if len(content) > MAX_BYTES:
            raise InputError(
                f"golden image {path.name} of {place} has {len(content):,} bytes; shrink it to {MAX_BYTES:,}, what an "
                "online request holds"
            )
        name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
        found.append(Image(name, content, PurePosixPath(name).parent.name))
    if not found:
        raise InputError(f"there are no golden images in {place}; give a folder of JPEG or PNG files")
    return found


def of_examples(examples_uri: str, split: str, count: int) -> list[Image]:
    """Returns `count` images of a split of ExampleGen's output, as many of each class as there are.

    What they show is not said: a model need not be right about each, it has to answer the same everywhere.
    """
    import tensorflow as tf

    from marco_model.datasets import untuned

    files = sorted(tf.io.gfile.glob(f"{examples_uri.rstrip('/')}/Split-{split}/*"))
    kind = "GZIP" if files and files[0].endswith(".gz") else ""
    by_class: dict[int, list[Image]] = {}
    records = untuned(tf.data.TFRecordDataset(files, kind).take(_LOOKED_AT))
    for number, record in enumerate(records.as_numpy_iterator()):
        features = tf.train.Example.FromString(record).features.feature
        encoded = features[contract.ENCODED].bytes_list.value[0]
        if len(encoded) <= MAX_BYTES:
            label = features[contract.LABEL].int64_list.value[0]
            by_class.setdefault(label, []).append(Image(f"{split} {number}", encoded))
    queues = [by_class[label] for label in sorted(by_class)]
    in_turn = (image for row in itertools.zip_longest(*queues) for image in row if image)
    return list(itertools.islice(in_turn, count))


def drawn(count: int) -> list[Image]:
    """Returns `count` synthetic drops, always the same, of all classes in turn."""
    from PIL import Image as Pillow

    from marco_data.synthetic import Settings, draw

    found = []
    for number in range(count):
        kind = CLASSES[number % len(CLASSES)]
        drop = draw(number, dataclasses.replace(Settings(seed=_SEED, shorter_side=400), classes={kind: 1.0}))
        buffer = io.BytesIO()
        Pillow.fromarray(drop.image).save(buffer, "JPEG", quality=drop.quality)
        found.append(Image(f"drawn {kind.lower()} {number}", buffer.getvalue()))
    return found
