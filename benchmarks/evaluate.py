"""The Evaluator with all its slices against plain batched prediction of the same examples.

Ours is the whole Evaluator: Beam's and TFMA's start, the model loaded, every example scored, the table of predictions
written, all metrics by institution, by imager and by both, thresholds checked, `metrics.json`. The peer loads the same
model and scores the same records in the same batches, nothing else. Both take turns in one process; each figure is the
median of the rounds. A quick network makes it hard: this is the `local` preset's, 155 pixels and 0.4 of the filters, on
JPEGs of 240 pixels' shorter side (240 drawn ones, again and again under other ids), without shrinking them first.

    python -m benchmarks.evaluate
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.report import report, seconds

DRAWN = 240
SHARDS = 8


def write_examples(folder: Path, count: int, shorter_side: int = 240) -> list[Path]:
    """Writes `count` records as ExampleGen does to `folder`/Split-eval, of at most 240 different drops; the files."""
    import tensorflow as tf

    from marco_data import contract
    from marco_data.synthetic import Settings, plan
    from marco_data.synthetic.writer import jpegs
    from marco_model.labels import CLASSES

    settings = Settings(shorter_side=shorter_side)
    numbers = list(range(min(count, DRAWN)))
    drawn = [
        (*image, plan(settings, number)) for number, image in zip(numbers, jpegs(numbers, settings, 2), strict=True)
    ]
    split = folder / "Split-eval"
    split.mkdir(parents=True)
    files = [split / f"data_tfrecord-{shard:05d}-of-{SHARDS:05d}.gz" for shard in range(SHARDS)]
    for shard, file in enumerate(files):
        with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
            for number in range(shard, count, SHARDS):
                jpeg, height, width, what = drawn[number % len(drawn)]
                example = contract.build_example(
                    encoded=jpeg,
                    image_format="JPEG",
                    height=height,
                    width=width,
                    filename=f"{number}.jpg",
                    image_id=number,
                    label=what.label,
                    label_text=CLASSES[what.label],
                    label_raw=what.kind,
                    source=1,
                )
                for name, text in (("institution", what.imager.institution), ("imager", what.imager.name)):
                    example.features.feature[name].bytes_list.value.append(text.encode())
                writer.write(example.SerializeToString())
    return files


def write_model(folder: Path, input_size: int, depth_multiplier: float) -> None:
    """Exports an untrained network to `folder`/Format-Serving; what it says is noise, how long it takes is not."""
    from marco_model.export import export
    from marco_model.labels import CLASSES
    from marco_model.network import Network, build

    network = Network(input_size=input_size, depth_multiplier=depth_multiplier, auxiliary=False)
    model = build(network, num_classes=len(CLASSES), seed=0)
    export(model, folder / "Format-Serving", classes=CLASSES, input_size=input_size, metadata={"name": "untrained"})


def evaluate(folder: Path, examples: Path, model: Path, batch_size: int) -> Path:
    """Runs the Evaluator's executor and returns where the evaluation lies."""
    from tfx.types import artifact_utils, standard_artifacts

    from components.evaluator.executor import Executor
    from components.example_gen.options import LOCAL_BEAM_ARGS
    from marco_model.labels import CLASSES

    def artifact(kind, uri):  # type: ignore[no-untyped-def]
        made = kind()
        made.uri = str(uri)
        return made

    data = artifact(standard_artifacts.Examples, examples)
    data.split_names = artifact_utils.encode_split_names(["eval"])
    context = Executor.Context(beam_pipeline_args=list(LOCAL_BEAM_ARGS), tmp_dir=str(folder / "tmp"), unique_id="1")
    Executor(context).Do(
        {"examples": [data], "model": [artifact(standard_artifacts.Model, model)]},
        {
            "evaluation": [artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")],
            "blessing": [artifact(standard_artifacts.ModelBlessing, folder / "blessing")],
        },
        {
            "thresholds": json.dumps({"accuracy": 0.0}),
            "classes": json.dumps(CLASSES),
            "auc_classes": json.dumps(["Crystals", "Precipitate"]),
            "split": "eval",
            "batch_size": batch_size,
        },
    )
    return folder / "evaluation"


def plain_prediction(model: Path, files: list[Path], batch_size: int) -> int:
    """Scores every record of `files`, as anyone would; returns how many."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model / "Format-Serving"))
    score = loaded.signatures["serving_examples"]
    records = tf.data.TFRecordDataset([str(file) for file in files], compression_type="GZIP")
    return sum(len(score(examples=batch)["scores"].numpy()) for batch in records.batch(batch_size).prefetch(1))


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=8000, help="examples")
    options.add_argument("--rounds", type=int, default=3, help="turns for each side")
    options.add_argument("--batch-size", type=int, default=64, help="images scored at once, on both sides")
    options.add_argument("--input-size", type=int, default=155, help="pixels of the network's input")
    options.add_argument("--depth-multiplier", type=float, default=0.4, help="share of the network's filters")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_examples(folder / "examples", chosen.count)
        write_model(folder / "model", chosen.input_size, chosen.depth_multiplier)
        small = write_examples(folder / "small", SHARDS)
        evaluate(folder / "warm", folder / "small", folder / "model", chosen.batch_size)
        plain_prediction(folder / "model", small, chosen.batch_size)
        rounds = itertools.count()
        sides = {
            "ours": lambda: evaluate(
                folder / f"round-{next(rounds)}", folder / "examples", folder / "model", chosen.batch_size
            ),
            "peer": lambda: plain_prediction(folder / "model", files, chosen.batch_size),
        }
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(chosen.rounds):
            for name, work in sides.items():
                taken[name].append(seconds(work))
                print(f"round {number + 1}, {name}: {taken[name][-1]:.1f} s", file=sys.stderr, flush=True)
        report(
            statistics.median(taken["ours"]), statistics.median(taken["peer"]), f"seconds for {chosen.count} examples"
        )


if __name__ == "__main__":
    main()
