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

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report, seconds

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


def write_model(folder: Path, preset: str) -> None:
    """Exports a preset's untrained network to `folder`/Format-Serving; its scores are noise, its time is not."""
    from components.trainer import execution
    from marco_model import network
    from marco_model.labels import CLASSES
    from pipelines import configuration

    loaded = configuration.load(preset)
    model = network.build(loaded.network, num_classes=len(CLASSES), seed=0)
    target = str(folder / "Format-Serving")
    execution.write_model(model, loaded.network, loaded.transform, "untrained", target, CLASSES)


def evaluation(folder: Path, examples: Path, model: Path, batch_size: int) -> Callable[[], None]:
    """Returns the run of the Evaluator's executor over `examples`, ready to begin."""
    from tfx.types import artifact_utils, standard_artifacts

    from components.settings import LOCAL_BEAM_ARGS
    from components.steps.evaluation import Evaluator
    from marco_model.labels import CLASSES

    def artifact(kind: Any, uri: Path) -> Any:
        made = kind()
        made.uri = str(uri)
        return made

    data = artifact(standard_artifacts.Examples, examples)
    data.split_names = artifact_utils.encode_split_names(["eval"])
    executor = Evaluator.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=list(LOCAL_BEAM_ARGS), tmp_dir=str(folder / "tmp"), unique_id="1")
    inputs = {"examples": [data], "model": [artifact(standard_artifacts.Model, model)]}
    outputs = {
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")],
        "blessing": [artifact(standard_artifacts.ModelBlessing, folder / "blessing")],
    }
    properties = {
        "thresholds": json.dumps({"accuracy": 0.0}),
        "classes": json.dumps(CLASSES),
        "split": "eval",
        "batch_size": batch_size,
    }
    return functools.partial(executor(context).Do, inputs, outputs, properties)


def plain_prediction(model: Path, files: list[Path], batch_size: int) -> int:
    """Scores every record of `files`, nothing else; returns how many."""
    import tensorflow as tf

    from marco_model.preprocessing import without_autotuning

    loaded = tf.saved_model.load(str(model / "Format-Serving"))
    score = loaded.signatures["serving_examples"]
    records = tf.data.TFRecordDataset([str(file) for file in files], compression_type="GZIP")
    batches = without_autotuning(records.batch(batch_size).prefetch(1))
    return sum(len(score(examples=batch)["scores"].numpy()) for batch in batches)


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=8000, help="examples")
    options.add_argument("--rounds", type=int, default=3, help="turns for each side")
    options.add_argument("--batch-size", type=int, default=64, help="images scored at once, on both sides")
    options.add_argument("--preset", default="local", help="whose network is run")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_examples(folder / "examples", chosen.count)
        write_model(folder / "model", chosen.preset)
        small = write_examples(folder / "small", SHARDS)
        evaluation(folder / "warm", folder / "small", folder / "model", chosen.batch_size)()
        plain_prediction(folder / "model", small, chosen.batch_size)
        taken: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(chosen.rounds):
            ours = evaluation(folder / str(number), folder / "examples", folder / "model", chosen.batch_size)
            peer = functools.partial(plain_prediction, folder / "model", files, chosen.batch_size)
            for name, work in (("ours", ours), ("peer", peer)):
                taken[name].append(seconds(work))
                print(f"round {number + 1}, {name}: {taken[name][-1]:.1f} s", file=sys.stderr, flush=True)
        report(
            statistics.median(taken["ours"]), statistics.median(taken["peer"]), f"seconds for {chosen.count} examples"
        )


if __name__ == "__main__":
    main()
