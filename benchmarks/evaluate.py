"""The Evaluator with all its slices against plain batched prediction of the same examples.

Ours is the Evaluator's whole work: Beam's start, the model loaded, every example scored, the table of
predictions written, all metrics by institution, by imager and by both, thresholds checked, `metrics.json`. What TFX
does before it begins, packing its own code for distant workers, is left out. The peer loads the same model and scores
the same records in the same batches, nothing else. Both take turns in one process; each figure is the median of the
rounds.

A quick model makes it hard: this is the one that the preset `local` exports, untrained (155 pixels, 0.4 of the filters,
images shrunk to 168 first), on JPEGs of 240 pixels' shorter side (240 drawn ones, again and again under other ids).

    python -m benchmarks.evaluate
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tfx.types import Artifact, artifact_utils, standard_artifacts

import benchmarks
from components import settings
from components.steps import evaluation
from components.trainer import execution
from marco_data import synthetic
from marco_model import labels, network, preprocessing
from pipelines import configuration

DRAWN = 240
SHARDS = 8


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


def evaluation_of(folder: Path, examples: Path, model: Path, batch_size: int) -> Callable[[], None]:
    """Returns a run of the Evaluator over `examples` with its outputs below `folder`, TFX's code already packed."""

    def artifact(kind: type[Artifact], uri: Path) -> Artifact:
        made = kind()
        made.uri = str(uri)
        return made

    data = artifact(standard_artifacts.Examples, examples)
    data.split_names = artifact_utils.encode_split_names(["eval"])
    executor = evaluation.Evaluator.EXECUTOR_SPEC.executor_class
    beam_args = list(settings.LOCAL_BEAM_ARGS)
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
    return functools.partial(executor(context).Do, inputs, outputs, properties)


def plain_prediction(model: Path, files: list[str], batch_size: int) -> int:
    """Scores every record of `files`, nothing else; returns how many."""
    loaded = tf.saved_model.load(str(model / "Format-Serving"))
    score = loaded.signatures["serving_examples"]
    dataset = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(batch_size).prefetch(1)
    batches = preprocessing.without_autotuning(dataset)
    return sum(len(score(examples=batch)["scores"].numpy()) for batch in batches)


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
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
        evaluation_of(folder / "warm-up", folder / "small", model, options.batch_size)()
        plain_prediction(model, small, options.batch_size)
        evaluations = [
            evaluation_of(folder / str(number), folder / "examples", model, options.batch_size)
            for number in range(options.rounds)
        ]
        figures = benchmarks.medians(
            lambda: evaluations.pop()(),
            lambda: plain_prediction(model, files, options.batch_size),
            options.rounds,
        )
    benchmarks.report(*figures, f"seconds for {options.count} examples")


if __name__ == "__main__":
    main()
