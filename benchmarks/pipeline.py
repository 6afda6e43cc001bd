"""Steps of the pipeline against the bare work that they cannot do without.

    python -m benchmarks.pipeline ingest

`ingest`: ours is ExampleGen's whole ingest of a set of MARCO shards: framing and checksums, every check, digests, the
search for duplicates, the output and its renaming, Beam's own start included. The peer decodes the same images, held in
memory, with the same decoder in as many threads. Both warm up first, then take turns.

    python -m benchmarks.pipeline evaluate

`evaluate`: ours is the Evaluator's whole work: Beam's start, the model loaded, every example scored, the table of
predictions written, all metrics by institution, by imager and by both, thresholds checked, `metrics.json`. The peer
loads the same model and scores the same records in the same batches, nothing else. Both take turns in one process. A
quick model makes it hard: this is the one that the preset `local` exports, untrained (155 pixels, 0.4 of the filters,
images shrunk to 168 first), on JPEGs of 240 pixels' shorter side (240 drawn ones, again and again under other ids).

Each figure is the median of the rounds.
"""

import concurrent.futures
import json
from pathlib import Path

import apache_beam as beam
import tensorflow as tf
from tfx.types import Artifact, artifact_utils, standard_artifacts

import benchmarks
from components import settings
from components.example_gen import ingest as ingestion
from components.steps import evaluation
from components.trainer import execution
from marco_data import name_tables, synthetic, tfrecord
from marco_model import labels, network, pixels, preprocessing
from pipelines import configuration

SHARD_IMAGES = 500
"""Records in a shard that `ingest` reads."""
DRAWN = 240
"""Different drops that `evaluate` scores."""
SHARDS = 8


def write_set(sources: list[Path], folder: Path, count: int) -> list[bytes]:
    """Writes `count` records made of the sources to shards, one of them for evaluation; returns the encoded images."""
    folder.mkdir()
    name_tables.write_tables(folder)
    encoded = [path.read_bytes() for path in sources]
    images = [benchmarks.distinct(encoded[number % len(encoded)], number) for number in range(count)]
    for number, batch in enumerate(benchmarks.batches(list(enumerate(images)), SHARD_IMAGES)):
        name = f"{'train' if number else 'test'}-{number:05d}-of-{count // SHARD_IMAGES:05d}"
        examples = (benchmarks.example(jpeg, index, index % len(labels.CLASSES)) for index, jpeg in batch)
        (folder / name).write_bytes(b"".join(map(tfrecord.frame, examples)))
    return images


def ingest(arguments: list[str]) -> None:
    """Measures and reports, in images a second on all cores."""
    parser = benchmarks.parser(__doc__, rounds=3)
    folder_help = "folder of JPEGs to make records of"
    parser.add_argument("--images-from", type=benchmarks.jpeg_files, default=benchmarks.IMAGES, help=folder_help)
    parser.add_argument("--count", type=int, default=3000, help="records in the set")
    parser.add_argument("--beam", nargs="*", help="Beam options; by default those of local runs")
    options = parser.parse_args(arguments)
    threads = pixels.cores()

    def ingest_set(path: Path, output: Path) -> None:
        pipeline = beam.Pipeline(argv=list(options.beam or settings.LOCAL_BEAM_ARGS))
        summary = ingestion.ingest([str(path)], f"{output}/examples", f"{output}/quarantine", None, pipeline)
        if summary["quarantined"]:
            raise RuntimeError(f"the set should be sound: {summary['reasons']}")

    def decode(encoded: list[bytes]) -> None:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(preprocessing.decode, encoded, chunksize=8):
                pass

    with benchmarks.scratch() as folder:
        decode(write_set(options.images_from, folder / "small", 20))
        ingest_set(folder / "small", folder / "warm-up")
        images = write_set(options.images_from, folder / "set", options.count)
        outputs = (folder / str(number) for number in range(options.rounds))
        figures = benchmarks.medians(
            lambda: ingest_set(folder / "set", next(outputs)),
            lambda: decode(images),
            options.rounds,
            figure=lambda work: options.count / benchmarks.seconds(work),
        )
    benchmarks.report(*figures, f"images/s, {threads} cores")


def write_examples(folder: Path, count: int, shorter_side: int = 240) -> list[str]:
    """Writes `count` records as ExampleGen does to `folder`/Split-eval, of at most 240 different drops; the files."""
    drops = benchmarks.draw(min(count, DRAWN), synthetic.Settings(shorter_side=shorter_side), processes=1)
    examples = (
        benchmarks.example(jpeg, number, drop.label, institution=drop.imager.institution, imager=drop.imager.name)
        for number in range(count)
        for jpeg, drop in [drops[number % len(drops)]]
    )
    return benchmarks.write_records(folder / "Split-eval", examples, SHARDS)


def write_model(folder: Path, preset: str) -> None:
    """Exports a preset's untrained network to `folder`/Format-Serving; its scores are noise, its time is not."""
    loaded = configuration.load(preset)
    model = network.build(loaded.network, num_classes=len(labels.CLASSES), seed=0)
    target = str(folder / "Format-Serving")
    execution.write_model(model, loaded.network, loaded.transform, "untrained", target, labels.CLASSES)


def run_evaluator(folder: Path, examples: Path, model: Path, batch_size: int) -> None:
    """Runs the Evaluator over `examples`; its outputs are below `folder`."""

    def artifact(kind: type[Artifact], uri: Path) -> Artifact:
        made = kind()
        made.uri = str(uri)
        return made

    data = artifact(standard_artifacts.Examples, examples)
    data.split_names = artifact_utils.encode_split_names(["eval"])
    beam_args = list(settings.LOCAL_BEAM_ARGS)
    executor = evaluation.Evaluator.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=beam_args, tmp_dir=str(folder / "tmp"), unique_id="1")
    inputs = {"examples": [data], "model": [artifact(standard_artifacts.Model, model)]}
    outputs = {
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")],
        "blessing": [artifact(standard_artifacts.ModelBlessing, folder / "blessing")],
    }
    properties = {
        "thresholds": json.dumps({"accuracy": 0.0}),
        "classes": json.dumps(labels.CLASSES),
        "split": "eval",
        "batch_size": batch_size,
    }
    executor(context).Do(inputs, outputs, properties)


def plain_prediction(model: Path, files: list[str], batch_size: int) -> int:
    """Scores every record of `files`, nothing else; returns how many."""
    loaded = tf.saved_model.load(str(model / "Format-Serving"))
    score = loaded.signatures["serving_examples"]
    dataset = tf.data.TFRecordDataset(files).batch(batch_size).prefetch(1)
    batches = preprocessing.without_autotuning(dataset)
    return sum(len(score(examples=batch)["scores"].numpy()) for batch in batches)


def evaluate(arguments: list[str]) -> None:
    """Measures and reports, in seconds for all examples."""
    parser = benchmarks.parser(__doc__, rounds=3)
    parser.add_argument("--count", type=int, default=8000, help="examples")
    parser.add_argument("--batch-size", type=int, default=64, help="images scored at once, on both sides")
    parser.add_argument("--preset", default="local", help="whose network is run")
    options = parser.parse_args(arguments)
    with benchmarks.scratch() as folder:
        model = folder / "model"
        write_model(model, options.preset)
        files = write_examples(folder / "examples", options.count)
        small = write_examples(folder / "small", SHARDS)
        run_evaluator(folder / "warm-up", folder / "small", model, options.batch_size)
        plain_prediction(model, small, options.batch_size)
        outputs = (folder / str(number) for number in range(options.rounds))
        figures = benchmarks.medians(
            lambda: run_evaluator(next(outputs), folder / "examples", model, options.batch_size),
            lambda: plain_prediction(model, files, options.batch_size),
            options.rounds,
        )
    benchmarks.report(*figures, f"seconds for {options.count} examples")


if __name__ == "__main__":
    benchmarks.choose(ingest=ingest, evaluate=evaluate)
