"""Images to rows, on Beam: find, sample by imager, read, measure, classify.

Nothing of an image but its name is read before the sample is drawn, for shards nothing but their records' features, so
that the expensive part, the classifier, sees only the sample.
"""

import atexit
import contextlib
import dataclasses
import datetime
import fnmatch
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import apache_beam as beam
import cv2
import numpy as np

import marco_model
from components import evaluations, published_models, settings
from components.example_gen import files
from components.monitoring.statistics import SCHEMA, Table, decoded, from_rows, image_statistics, middle
from marco_data import contract, image_files, name_tables, place_reader, places, shards
from marco_model import errors, pixels, store

ANY = "*"


@dataclasses.dataclass(frozen=True)
class Naming:
    """The rules, the first that fits counting.

    Attributes:
        rules: pairs of a pattern (`*`, `?`, `[…]`; matches the path below the folder given) and the imager's name.
        institution: whose file names show the imager (docs/data.md), for files; records name their own.
        names: what says when and under which light images were taken; an imager's images under another light than the
            visible one count as those of another imager, such as `Lab / Rock Imager, UV`.
    """

    rules: tuple[tuple[str, str], ...] = ()
    institution: str = ""
    names: place_reader.NamedPlaces | None = None

    def of_file(self, name: str, path: str = "") -> str:
        """Returns the imager of the file `path`, whose path below the folder given is `name`, or `unknown`."""
        light = self.names(path).light if self.names else ""
        return _under(self._imager(name, self.institution, ""), light)

    def of_record(self, name: str, institution: str, imager: str) -> str:
        """Returns the imager of a record whose image was called `name`; `imager` may be empty."""
        light = self.names.of_record(name).light if self.names else ""
        return _under(self._imager(name, institution, imager), light)

    def _imager(self, name: str, institution: str, imager: str) -> str:
        for pattern, named in self.rules:
            if fnmatch.fnmatchcase(name, pattern):
                return named
        return imager_name(institution, imager or name_tables.imager_of(institution, name.rsplit("/", 1)[-1]))

    def changed(self, file: shards.File) -> float:
        """Returns when an image was taken if `names` says so, else when its file was changed; seconds since 1970."""
        date = self.names(file.path).date if self.names else ""
        return datetime.datetime.fromisoformat(date).timestamp() if date else file.modified


def _under(imager: str, light: str) -> str:
    return imager if places.is_visible(light) else f"{imager}, {light}"


def imager_name(institution: str, imager: str) -> str:
    """Returns `CSIRO / Rigaku Minstrel`: cameras of one make at two places are two imagers."""
    if imager in ("", name_tables.UNKNOWN):
        return institution if institution and not institution.startswith("source ") else name_tables.UNKNOWN
    return f"{institution} / {imager}" if institution else imager


def parse_rules(rules: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Reads `NAME`, for every image, and `PATTERN=NAME`."""
    pairs = (rule.partition("=") if "=" in rule else (ANY, "=", rule) for rule in rules)
    return tuple((pattern.strip(), name.strip()) for pattern, _, name in pairs)


_A_FILE = -1


class Found(NamedTuple):
    """A shard or an image file, and the name by which reports call it.

    `path`: bytes as `os.fsencode` gives, since Beam takes text that is UTF-8 alone, and no name needs to be.
    """

    path: bytes
    name: str
    is_shard: bool


class Candidate(NamedTuple):
    """One image that may be measured; the sample is those of the lowest `priority`, a number drawn from its name."""

    priority: int
    path: bytes
    index: int  # type: ignore[assignment]  # Hides tuple.index, which nothing here calls.
    imager: str
    name: str


def find_images(paths: Sequence[str], days: float | None = None, naming: Naming = Naming()) -> list[Found]:
    """Returns the shards and images of files, folders and globs, local or `gs://`.

    A folder that holds images is taken for one of images; its folders and links that cannot be read are listed too.
    Thumbnails and focus slices of an image are left out. `days`: only images that were taken, or whose files changed,
    so many days ago at most. Raises InputError where a path has neither, and if `naming.names` names no image.
    """
    files_by_path: dict[str, Found] = {}
    since = time.time() - days * 86400 if days is not None else float("-inf")
    for path in paths:
        files = shards.list_files(path)
        is_shard = not any(image_files.has_image_ending(file.name) for file in files)
        listed = [file for file in files if image_files.has_image_ending(file.name) or file.unreadable]
        listed = _shards(path) if is_shard else _main(listed, naming)
        for file in listed:
            if file.unreadable or (file.modified if is_shard else naming.changed(file)) >= since:
                found = Found(os.fsencode(file.path), image_files.as_text(file.name), is_shard)
                files_by_path.setdefault(file.real_path, found)
    return sorted(files_by_path.values(), key=lambda file: (file.name, file.path))


def _main(files: Sequence[shards.File], naming: Naming) -> list[shards.File]:
    main = set(places.main_images([file.path for file in files if not file.unreadable]))
    if naming.names and not any(place.plate or place.well for place in map(naming.names, main)):
        raise errors.InputError("--names names none of the images; compare it with their paths")
    return [file for file in files if file.unreadable or file.path in main]


def _shards(path: str) -> list[shards.File]:
    try:
        return shards.find_shards([path])
    except errors.InputError as error:
        none = "no images and " if str(error).startswith("no TFRecord") else ""
        raise errors.InputError(f"{none}{error}") from None


Institutions = Mapping[str, Mapping[int, str] | None]
"""The institutions of each shard, by its path, as its `sources.csv` names them; None without one."""


def institutions(paths: Sequence[str], found: Sequence[Found]) -> Institutions:
    """Returns the institutions of the shards among `found`."""
    shard_paths = [os.fsdecode(file.path) for file in found if file.is_shard]
    return name_tables.find_tables(name_tables.SOURCES_FILE, paths, shard_paths)


def candidates(file: Found, naming: Naming, institutions: Institutions, seed: int) -> Iterator[Candidate]:
    """Yields the images of a file; damaged records are skipped, since ExampleGen's quarantine lists them."""
    if not file.is_shard:
        imager = naming.of_file(file.name, os.fsdecode(file.path))
        yield Candidate(_priority(seed, file.name, _A_FILE), file.path, _A_FILE, imager, file.name)
        return
    sources = institutions.get(os.fsdecode(file.path))
    for index, features in shards.read_examples(os.fsdecode(file.path)):
        if not features:
            continue
        name = _text(features, contract.FILENAME)
        institution = _text(features, contract.INSTITUTION)
        if not institution and sources and contract.SOURCE in features:
            institution = next((sources.get(number, "") for number in features[contract.SOURCE].int64_list.value), "")
        imager = naming.of_record(name, institution, _text(features, contract.IMAGER))
        yield Candidate(_priority(seed, file.name, index), file.path, index, imager, name or f"{file.name}#{index}")


def encoded_images(
    path: bytes, candidates: Iterable[Candidate], bits: int | None = None
) -> Iterator[tuple[Candidate, bytes | str]]:
    """Yields the requested images of the file `path` as JPEG or PNG bytes, or the reason why one is missing.

    `bits`: of image files, see `pictures.upright`.
    """
    by_index = {candidate.index: candidate for candidate in candidates}
    if _A_FILE in by_index:
        yield by_index[_A_FILE], _file(os.fsdecode(path), bits)
        return
    for index, features in shards.read_examples(os.fsdecode(path)):
        if index in by_index:
            data = features[contract.ENCODED].bytes_list.value
            yield by_index[index], data[0] if data else "has no image"


def _text(features: Mapping, name: str) -> str:
    values = features[name].bytes_list.value if name in features else ()
    return values[0].decode("utf-8", "replace") if values else ""


def _file(path: str, bits: int | None) -> bytes | str:
    try:
        if not store.is_remote(path):
            return image_files.encoded_image(path, bits)
        with tempfile.NamedTemporaryFile(suffix=PurePosixPath(path).suffix) as copy:
            Path(copy.name).write_bytes(store.read_bytes(path))
            return image_files.encoded_image(copy.name, bits)
    except errors.InputError as error:
        return str(error)


def _priority(seed: int, name: str, index: int) -> int:
    key = f"{seed}\0{name}\0{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")


Described = tuple[np.ndarray, np.ndarray]


class Describer:
    """A classifier that returns embeddings beside scores; raises InputError if the folder holds no such model."""

    def __init__(self, model: Path) -> None:
        import tensorflow as tf

        self._classifier = marco_model.open_classifier(model)
        embed, logits = self._classifier.embeddings, self._classifier.logits
        # The network runs once for both: an exported model's weights are constants, and TensorFlow merges what is
        # computed twice from the same ones.
        self._both = tf.function(lambda images: (embed(images), tf.nn.softmax(logits(images))), autograph=False)

    def __call__(self, encoded: Sequence[bytes]) -> list[Described | str]:
        """Returns embedding, float32 [d], and scores, float32 [classes], of each image, or the reason why not."""
        return errors.result_or_reason(self._describe, list(encoded)) if encoded else []

    def _describe(self, encoded: Sequence[bytes]) -> Iterable[Described]:
        embeddings, scores = self._both(self._classifier.images(encoded))
        return zip(embeddings.numpy(), scores.numpy(), strict=True)


_BATCH = 8
_THUMBNAILS, _THUMBNAIL_SIDE = 8, 144
"""How many images of an imager have one, and its shorter side in pixels."""


class Setup(NamedTuple):
    """How images are measured: by which model, under which names of imagers, and where.

    `model`: folder or `gs://` URI of a classifier. `staging`: a URI that the workers reach, which is removed,
    or a path, beside which a folder is made for a while. `beam_options`: empty for this project's own.
    `bits`: of image files, see `pictures.upright`.
    """

    model: str
    naming: Naming
    staging: str
    beam_options: Sequence[str] = ()
    bits: int | None = None


class Measured(NamedTuple):
    """The measured rows, how many images each imager had, and (imager, name, reason) of those that failed."""

    table: Table
    seen: dict[str, int]
    failed: list[tuple[str, str, str]]


def measure_images(
    paths: Sequence[str], setup: Setup, images: int, seed: int = 0, days: float | None = None
) -> Measured:
    """Measures up to so many images of each imager; which ones depends on their names and the seed alone.

    `paths`, `days`: see `find_images`, which may find none. Raises InputError as it does, and for a model that can't be
    used.
    """
    found = find_images(paths, days, setup.naming)
    if not found:
        return Measured(from_rows([]), {}, [])
    sources = institutions(paths, found)
    pipeline = beam.Pipeline(argv=list(setup.beam_options or settings.LOCAL_BEAM_ARGS))
    with _staging(setup.staging) as staging:
        with errors.expected_errors(), files.errors_raised_only(), pipeline:
            all_images = (
                pipeline
                | "Found" >> beam.Create(found)
                | "Spread" >> beam.Reshuffle()
                | "List" >> beam.FlatMap(candidates, setup.naming, sources, seed)
                | "ByImager" >> beam.WithKeys(lambda candidate: candidate.imager)
            )
            _ = (
                all_images
                | "Count" >> beam.combiners.Count.PerKey()
                | "Line" >> beam.Map(json.dumps)
                | "WriteCounts" >> beam.io.WriteToText(f"{staging}/seen", num_shards=1)
            )
            _ = (
                all_images
                | "Sample" >> beam.combiners.Top.SmallestPerKey(images)
                | "Number" >> beam.FlatMap(_numbered)
                | "ByFile" >> beam.GroupByKey()
                | "Read" >> beam.FlatMap(_read, setup.bits)
                | "Batch" >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
                | "Measure" >> beam.ParDo(_Measure(setup.model))
                | "WriteRows" >> beam.io.WriteToParquet(f"{staging}/rows", SCHEMA, num_shards=1)
            )
        return _collected(staging)


@contextlib.contextmanager
def _staging(place: str) -> Iterator[str]:
    """Yields a folder, empty and deleted afterwards: the URI `place`, or a new one beside the path `place`."""
    if not store.is_remote(place):
        with store.folder_aside(place) as folder:
            yield str(folder)
        return
    files.delete_tree(place)
    try:
        yield place
    finally:
        files.delete_tree(place)


def _numbered(group: tuple[str, list[Candidate]]) -> Iterator[tuple[bytes, tuple[int, Candidate]]]:
    """Yields the sample of an imager by file, each with its place in the draw."""
    for place, candidate in enumerate(group[1]):
        yield candidate.path, (place, candidate)


def _read(
    group: tuple[bytes, Iterable[tuple[int, Candidate]]], bits: int | None
) -> Iterator[tuple[int, Candidate, bytes | str]]:
    path, group_candidates = group
    # Beam may hand a candidate over as a plain tuple.
    places = {Candidate(*candidate): place for place, candidate in group_candidates}
    for candidate, data in encoded_images(path, list(places), bits):
        yield places[candidate], candidate, data


class _Measure(beam.DoFn):
    """From batches of encoded images to rows of `SCHEMA`."""

    def __init__(self, model: str) -> None:
        self._model = model

    def setup(self) -> None:
        # A copy of a model in a bucket stays until the worker ends.
        folder = contextlib.ExitStack()
        self._describe = Describer(folder.enter_context(published_models.on_this_machine(self._model)))
        atexit.register(folder.close)

    def process(self, batch: list[tuple[int, Candidate, bytes | str]]) -> Iterator[dict[str, Any]]:
        rows = [_row(candidate, place, data) for place, candidate, data in batch]
        sound = [index for index, row in enumerate(rows) if not row["reason"]]
        described = self._describe([cast(bytes, batch[index][2]) for index in sound])
        for index, result in zip(sound, described, strict=True):
            if isinstance(result, str):
                rows[index] = _failed(batch[index][1], result)
            else:
                rows[index] |= {"embedding": result[0].tolist(), "scores": result[1].tolist()}
        yield from rows


def _row(candidate: Candidate, place: int, data: bytes | str) -> dict[str, Any]:
    if isinstance(data, str):
        return _failed(candidate, data)
    try:
        pixels.check(data)
        measured = image_statistics(data)
        thumbnail = _thumbnail(data) if place < _THUMBNAILS else b""
    except errors.InputError as error:
        return _failed(candidate, str(error))
    return _failed(candidate, "") | {"statistics": measured.tolist(), "thumbnail": thumbnail}


def _failed(candidate: Candidate, reason: str) -> dict[str, Any]:
    empty = {"statistics": [], "embedding": [], "scores": [], "thumbnail": b""}
    return {"imager": candidate.imager, "name": candidate.name, "reason": reason, **empty}


def _thumbnail(data: bytes) -> bytes:
    shown = middle(decoded(data))
    scale = _THUMBNAIL_SIDE / min(shown.shape[:2])
    small = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _collected(staging: str) -> Measured:
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for file in shards.list_files(staging):
        data = store.read_bytes(file.path)
        if file.name.startswith("rows"):
            rows += evaluations.read_parquet(data, file.name).to_pylist()
        else:
            seen.update(json.loads(line) for line in data.splitlines())
    failed = sorted((row["imager"], row["name"], row["reason"]) for row in rows if row["reason"])
    return Measured(from_rows([row for row in rows if not row["reason"]]), seen, failed)
