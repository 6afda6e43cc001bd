"""What is fuzzed: functions from bytes of anybody to nothing, each with the modules that it reaches.

Each keeps the contract of `tests.fuzz.contract`. Modules are imported when a target runs, so that those of one target
can be instrumented, and the others need not be there.
"""

import asyncio
import contextlib
import functools
import io
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from marco_model import errors, labels
from tests.fakes.classifier import Scripted as ScriptedClassifier
from tests.fuzz import contract
from tests.fuzz.contract import Target


def _choice(data: bytes) -> tuple[int, bytes]:
    """Returns the number that the first byte is, as a digit where it is one, and the rest."""
    return (data[0] - ord("0")) % 64 if data else 0, data[1:]


# Records and images


def read_records(data: bytes) -> None:
    """A shard: each byte comes back once, in a record or in the rest, and a small one does not inflate without end."""
    from marco_data import contract as record_contract, tfrecord

    total = 0
    for item in tfrecord.read_records(io.BytesIO(data)):
        assert item.offset == total
        if isinstance(item, tfrecord.Record):
            total += len(item.data) + tfrecord.FRAME_BYTES
            with contextlib.suppress(errors.InputError):
                record_contract.parse_example(item.data)
        else:
            total += sum(map(len, item.chunks))
    assert total <= 2 * tfrecord.MAX_RECORD_BYTES + (tfrecord.MAX_RATIO + 1) * len(data)


def check_example(data: bytes) -> None:
    """A record: accepted, rejected or left out, and its features as the drift watch reads them."""
    from components import settings
    from components.example_gen import checks
    from components.monitoring import measure
    from marco_data import contract as record_contract, tfrecord

    # The decoder of scoring, which takes no seconds to import; `headers` compares the two.
    record_contract.check_decodes = _check_decodes
    verdict = checks.check_record(data, checks.Tables(sources={1: "Merck"}), settings.IngestOptions())
    assert isinstance(verdict, checks.Accepted | checks.Rejected | checks.LeftOut)
    with contract.file(tfrecord.frame(data), "train-00001-of-00001") as path:
        found = measure.Found(os.fsencode(path), path.name, True)
        candidates = list(measure.candidates(found, measure.Naming(), {str(path): {1: "Merck"}}, 0))
        list(measure.encoded_images(found.path, candidates))


def _check_decodes(encoded: bytes) -> None:
    from marco_model import pixels

    pixels.decode(encoded)


def judge_header(data: bytes) -> None:
    """A picture: decoded in the size that its header was read as, or refused."""
    from tests.fuzz import headers

    headers.judge(data)


def read_image(data: bytes) -> None:
    """A picture as `predict`, `import` and the pages take it: what comes back decodes, and nothing else raises."""
    from marco_data import image_files
    from marco_model import pixels

    pixels.flag(data)
    pixels.picture(data, 32)
    with contract.file(data, "image") as path:
        encoded = image_files.encoded_image(path)
    try:
        header = image_files.image_header(encoded)
    except ValueError:
        header = None
    try:
        shape = pixels.decode(encoded).shape
    except errors.InputError:
        return
    assert header and shape == (header.height, header.width, 3)
    pixels.flag(encoded)
    shrunk = pixels.picture(encoded, 32)
    assert shrunk is not None and max(shrunk.size) <= 32
    if header.height * header.width < 1 << 20:
        pixels.decode(pixels.shrink(encoded, 8))


def _mutated_image(data: bytes, draw: random.Random) -> bytes:
    from tests.fuzz import images

    return images.mutated(data, draw)


# Names and tables


def read_places(data: bytes) -> None:
    """A path: whatever it is, it has a place, perhaps an empty one."""
    from marco_data import place_reader, places, shards

    path = data.decode("utf-8", "surrogateescape")
    place = places.place_of(path)
    assert all(isinstance(part, str | bool) for part in place)
    places.plate_group(path)
    assert places.main_images([path, f"{path}/a.jpg"])
    place_reader.reader([path])(path)
    shards.hashed_split(path.encode("utf-8", "replace").decode(), 1, 0.1, 0.1)


def read_names(data: bytes) -> None:
    """`--names`, and paths below it: an expression in the first line, or after a line `.csv` a table."""
    from marco_data import place_reader

    first, _, rest = data.partition(b"\n")
    if first == b".csv":
        with contract.file(rest, "names.csv") as path:
            place_of = place_reader.reader([path.parent / "a.jpg", "gs://b/x/b.jpg"], str(path))
    else:
        # An expression may take time without end; that is for whoever wrote it. Short paths keep it bounded here.
        paths = [line[:16] for line in rest.decode("utf-8", "surrogateescape").splitlines()[:3]]
        place_of = place_reader.reader(paths, first.decode("utf-8", "replace")[:40])
    assert isinstance(place_of("a.jpg").plate, str)
    if isinstance(place_of, place_reader.NamedPlaces):
        assert isinstance(place_of.of_record("x\\b.jpg").plate, str)


def read_tables(data: bytes) -> None:
    """By the first character: a table of labels (0), of raw labels (1), of names by number (2), an overlay (3)."""
    from marco_data import image_files, label_tables, name_tables, overlay

    kind, content = _choice(data)
    with contract.file(content, "table.csv") as path:
        if kind % 4 == 2:
            names = name_tables.parse_table(name_tables.read_csv_text(path), "table.csv")
            assert all(isinstance(number, int) and isinstance(name, str) for number, name in names.items())
        elif kind % 4 == 3:
            overlay.check_labels(overlay.read_overlay(str(path)), labels.FOUR)
        else:
            table = label_tables.from_csv(path, raw_labels=kind % 4 == 1, keep_splits=b"split" in content[:60])
            for image in table.images[:3]:
                with contextlib.suppress(errors.InputError):
                    image_files.read_file(image.path)


def continue_table(data: bytes) -> None:
    """A table of scores of an earlier run. Bits of the first character: to append, stopped early, JSON Lines."""
    from marco_data import places
    from marco_scoring import score_table, table_lines

    kind, content = _choice(data)
    name = "scores.jsonl" if kind & 4 else "scores.csv"
    options = score_table.Options(append=bool(kind & 1), resume=not kind & 1, best=False)
    with contract.file(content, name.replace(".", ".partial.") if kind & 2 else name) as path:
        output = path.with_name(name)
        with score_table.open_table(output, labels.CLASSES, "m", score_table.SCORES_ALONE, options=options) as table:
            row = score_table.row("new.jpg", labels.CLASSES, (0.1, 0.2, 0.3, 0.4), "m", places.Place())
            table.write({**row, "bytes": "1", "modified": ""})
        header, rows = table_lines.read_rows(output, table_lines.format_of(output, None))
        assert [cells["path"] for cells in rows].count("new.jpg") == 1 and set(table.names) == set(header)


def read_sheets(data: bytes) -> None:
    """By the first character: a sheet of raters (0), of a plate page (1), the key of an export (2)."""
    from marco_data.relabelling import sheets

    kind, content = _choice(data)
    images = {number: sheets.ExportedImage("train", "Clear", "Other", f"images/{number}.jpg") for number in (7, 8)}
    with contract.file(content, "sheet-ann.csv") as path:
        if kind % 3 == 2:
            sheets.read_key(str(path))
        else:
            ids = {"blake2b:0123456789abcdef": [7, 8]} if kind % 3 else None
            sheets.read_sheets([str(path)], images, labels.CLASSES, "", ids)


def read_presets(data: bytes) -> None:
    """By the first character: a preset (0), `--set` (1), a section of labels (2), limits of the drift watch (3)."""
    from components.monitoring import two_sample
    from pipelines import configuration

    kind, content = _choice(data)
    with contract.file(content, "mine.yaml") as path:
        if kind % 4 == 0:
            configuration.load(str(path))
        elif kind % 4 == 1:
            configuration.load("local", [content.decode("utf-8", "replace")])
        elif kind % 4 == 2:
            configuration.load_labels(str(path))
        else:
            two_sample.read_limits(path)


# The server


class _Inline(Executor):
    """Runs at once, in this thread, whose coverage guides."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Classifier(ScriptedClassifier):
    """Decodes as the true one does, and finds all classes as likely."""

    classes, name, temperature = labels.CLASSES, "m", 1.5

    def score(self, encoded: list[bytes]) -> Any:
        import numpy as np

        from marco_model import pixels

        for image in encoded:
            pixels.decode(image)
        return np.full((len(encoded), 4), 0.25, np.float32)


@functools.cache
def _server() -> tuple[asyncio.AbstractEventLoop, Any]:
    from marco_scoring.serving import classify, connections, protocols, server

    limits = classify.Limits(max_instances=8, max_pixels=1_000_000, max_image_mb=1, max_body_mb=1)
    vertex = protocols.VertexContainer(predict_route="/predict", health_route="/health")
    concurrency = classify.Concurrency(threads=1)
    scorer = server.Scorer(_Classifier(), "marco", concurrency, (_Inline(), _Inline()))  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield

    app = server.application(scorer, "marco", limits, vertex, lifespan)
    return asyncio.new_event_loop(), connections.BodyLimit(app, 1 << 20, 4 << 20)


def answer_request(data: bytes) -> None:
    """A request, see `seeds.request`: answered, with a status that blames the sender and one line of reason in JSON."""
    loop, app = _server()
    head, _, body = data.partition(b"\n\n")
    path, *lines = head.split(b"\n")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": "GET" if path.startswith(b"/metrics") else "POST", "path": path.decode("utf-8", "replace"),
        "raw_path": path, "query_string": b"", "headers": headers, "client": ("::1", 1), "server": ("::1", 1),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    loop.run_until_complete(app(scope, receive, send))
    status, content = sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
    assert status < 500 or status in (501, 503), (status, content[:500])
    if status >= 400 and scope["method"] == "POST":
        reason = json.loads(content)["error"]
        assert "\n" not in reason and len(reason) <= errors.MAX_CHARACTERS, reason[:300]


# Files of runs and models


def read_parquet(data: bytes) -> None:
    """By the first character: predictions of an evaluation (0), the images of a reference (1)."""
    from components import evaluations
    from components.monitoring import statistics

    kind, content = _choice(data)
    with contract.file(content, evaluations.PREDICTIONS_FILE) as path:
        if kind % 2:
            statistics.read_table(str(path))
        else:
            evaluations.scores_of(evaluations.read_predictions(str(path.parent)))
    assert not Path("executed-by-parquet").exists()


def read_descriptions(data: bytes) -> None:
    """By the first character: what describes a model (0), a run (1), a published version (2); an index of records (3).

    Then the projection of a reference (4) and a checkpoint (5).
    """
    from components.monitoring import drift, statistics
    from marco_model import checkpoints, example_files, model_directory, store

    kind, content = _choice(data)
    kind %= 6
    folder = contract.scratch() / "files"
    (folder / "assets.extra").mkdir(parents=True, exist_ok=True)
    if kind == 0:
        (folder / model_directory.METADATA).write_bytes(content)
        model_directory.class_names(folder)
    elif kind == 1:
        (folder / "training.json").write_bytes(content)
        store.read_json(str(folder / "training.json"))
    elif kind == 2:
        from components import published_models

        (folder / model_directory.PUSH_RECORD).write_bytes(content)
        published_models.read_note(folder)
    elif kind == 3:
        (folder / "shard-00001-of-00001").write_bytes(content[:32])
        index = Path(example_files.index_path(str(folder)))
        index.parent.mkdir(exist_ok=True)
        index.write_bytes(content)
        example_files.read_index([str(folder / "shard-00001-of-00001")])
    elif kind == 4:
        (folder / drift.FILE).write_text(json.dumps({"format": 1, "statistics": list(statistics.NAMES)}))
        (folder / "projection.npz").write_bytes(content)
        (folder / "images.parquet").write_bytes(b"")
        drift.read_reference(str(folder))
    else:
        (folder / "step-000000001.npz").write_bytes(content)
        checkpoints.newest(str(folder))


def read_bundle(data: bytes) -> None:
    """The index of a checkpoint beside 64 bytes of tensors."""
    from marco_model import published

    prefix = contract.scratch() / "variables"
    prefix.with_name("variables.data-00000-of-00001").write_bytes(bytes(64))
    prefix.with_name("variables.index").write_bytes(data)
    published.read_checkpoint(prefix)


_CSV = ("\r\n", ",", ";", "\t", '"', "sep=;", "²", "\ufeff", "\0")
_JSON = ('{"', '":', "null", "true", "1e999", "-0", '"\\ud800"', "[", "]", "NaN")
TARGETS: dict[str, Target] = {
    "records": Target(read_records, ("marco_data.tfrecord", "marco_data.contract"), most_bytes=65_536),
    "examples": Target(
        check_example,
        ("components.example_gen.checks", "marco_data.contract", "marco_data.shards", "components.monitoring.measure"),
        ("image/encoded", "image/class/label", "image/class/source", "image/plate", "image/id"),
    ),
    "headers": Target(
        judge_header, ("marco_data.image_files", "marco_model.pixels"), most_bytes=16_384, mutate=_mutated_image
    ),
    "images": Target(
        read_image, ("marco_data.image_files", "marco_model.pixels"), most_bytes=16_384, mutate=_mutated_image
    ),
    "places": Target(
        read_places,
        ("marco_data.places", "marco_data.place_reader"),
        ("plateID_", "batchID_", "wellNum_", "profileID_", "d1_r1_ef", "_RDI", "imaging/", "Default", "A01"),
        most_bytes=1024,
    ),
    "names": Target(
        read_names,
        ("marco_data.place_reader", "marco_data.places", "marco_data.name_tables"),
        ("(?P<plate>", "(?P<well>", ".csv\n", "path", "filename", "well", "drop", "inspection", "date", "light", *_CSV),
    ),
    "tables": Target(
        read_tables,
        ("marco_data.label_tables", "marco_data.name_tables", "marco_data.overlay"),
        ("filename,label", "image_id", "label_id", "label_text", "label_raw", "source", "split", "rater", *_CSV),
    ),
    "scores": Target(
        continue_table,
        ("marco_scoring.score_table", "marco_scoring.table_lines", "marco_data.name_tables"),
        ("path", "model", "bytes", "modified", "clear", *_CSV, *_JSON),
    ),
    "sheets": Target(
        read_sheets,
        ("marco_data.relabelling.sheets", "marco_data.overlay", "marco_data.name_tables"),
        ("image_id", "label", "rater", "date", "file", "images/7.jpg", "Jan", "PM", *_CSV),
    ),
    "presets": Target(
        read_presets,
        ("pipelines.configuration", "components.settings", "marco_model.labels", "components.monitoring.two_sample"),
        ("name: ", "data: ", "thresholds: ", "labels: ", "recipe: ", "cluster: ", "vertex: ", "engine: ", "&a ", "*a",
         "!!", "<<: ", "- ", "|\n", "recipe.steps=", ".", "=", *_JSON),
    ),
    "server": Target(
        answer_request,
        ("marco_scoring.serving.protocols", "marco_scoring.serving.classify", "marco_scoring.serving.server",
         "marco_scoring.serving.connections", "marco_scoring.serving.fair_queue"),
        ("/v1/models/marco:predict", "/v2/models/marco/infer", "/predict", "instances", "inputs", "outputs", "b64",
         "image_bytes", "BYTES", "shape", "datatype", "binary_data_size", "inference-header-content-length: ",
         "content-type: ", "content-length: ", "ce-specversion: 1.0", "signature_name", *_JSON),
    ),
    "parquet": Target(
        read_parquet, ("components.evaluations", "components.monitoring.statistics"), most_bytes=8192
    ),
    "descriptions": Target(
        read_descriptions,
        ("marco_model.model_directory", "marco_model.example_files", "marco_model.checkpoints", "marco_model.store",
         "components.monitoring.drift", "components.published_models"),
        ("classes", "descr", "fortran_order", "<f4", "|O", *_JSON),
    ),
    "bundles": Target(read_bundle, ("marco_model.published",)),
}  # fmt: skip
