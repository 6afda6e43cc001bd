"""Takes this process's part in a training: builds the network, trains, calibrates and exports it, and records the run.

Every process of a job calls `run`, on whatever machine it is; a search calls `record_run` and `train` for each trial.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from components import leave_out, mlflow_runs, settings
from components.trainer import drop_courses
from components.trainer.job import TrainingJob
from marco_data import image_files, shards
from marco_data.progress import progress
from marco_model import (
    calibration,
    classifier,
    engines,
    errors,
    example_files,
    layers,
    model_directory,
    network as networks,
    novelty,
    onnx_network,
    pixels,
    preprocessing,
    saved_model,
    store,
    training,
    training_input,
    weights,
)

log = logging.getLogger(__name__)

_SAMPLED, _WIDE = 64, 2.1
_DESCRIBED = 1000


class Records(NamedTuple):
    """The examples of the two splits that training looks at."""

    train: example_files.RecordIndex
    validation: example_files.RecordIndex

    def with_targets(self, sought: example_files.Targets) -> "Records":
        """Returns the same examples, to be read with these targets."""
        return Records(*(dataclasses.replace(index, targets=sought) for index in self))


def run(job: TrainingJob) -> None:
    """Takes this process's part in the job; the one that leads writes checkpoints, the model and the MLflow run.

    Raises what `marco_model.training.train` does, and `InputError` if TensorFlow sees fewer GPUs than were asked for or
    examples are damaged.
    """
    serving = engines.serving_cluster(job.engine)
    if not (serving and serving.job == "ps"):
        check_gpus(job.gpus)
    if serving:
        engines.serve(serving)
        return
    running = engines.start(job.engine)
    records = read_records(job)
    try:
        if running.leads:
            _lead(job, running, records)
        else:
            train(job, running, records)
    except tf.errors.DataLossError:
        shards.refuse_damaged([*job.train_files, *job.validation_files])
        raise


def _lead(job: TrainingJob, running: engines.Running, records: Records) -> None:
    """Trains, records the run, and writes the model and what belongs to it."""
    check_windows(job, records.train)
    with record_run(job, records) as record:
        name, note = mlflow_runs.DESCRIPTION.get()
        record.describe(f"{name}, without {job.left_out.value}" if name and job.left_out else name, note)
        model, trained = train(job, running, records, record)
        fitted = calibrate(model, job, records.validation)
        record.log_slices({f"calibration/{name}": value for name, value in dataclasses.asdict(fitted).items()})
        directory, classes = job.model_directory, job.classes
        raw = tuple(job.targets.raw_labels.values())
        write_model(model, job.network, job.transform, job.name, directory, classes, fitted.temperature, raw)
        if not job.left_out:  # That model is for comparing accuracies only.
            describe_pictures(directory, records)
        if job.tflite:
            saved_model.add_tflite(directory, classes, job.validation_files)
        if job.time_course:
            drop_courses.add(directory, classes, *records)
        content = {
            "mlflow_run_id": record.run_id,
            "tracking_uri": record.tracking_uri,
            **dataclasses.asdict(trained),
            "calibration": dataclasses.asdict(fitted),
        }
        artifact = directory.rstrip("/").rpartition("/")[0]
        store.write_bytes(f"{artifact}/{mlflow_runs.TRAINING_FILE}", json.dumps(content, indent=2).encode())


def check_gpus(expected: int) -> None:
    """Raises `InputError` if TensorFlow sees fewer GPUs than `expected`: a training on the CPU would take weeks."""
    count = len(tf.config.list_physical_devices("GPU"))
    if count < expected:
        raise errors.InputError(
            f"TensorFlow sees {count} of the {expected} GPUs that were asked for this process; take an image for GPUs "
            "(make image ACCELERATOR=gpu), check the node's driver, or ask for fewer accelerators"
        )


def check_windows(job: TrainingJob, records: example_files.RecordIndex) -> None:
    """Warns of native windows that show a small part of the images: training and evaluation then see unlike scales.

    The paper's windows are native, of images whose shorter side was at most about twice the network's input
    (docs/model.md). Some `_SAMPLED` images are looked at.
    """
    if job.recipe.window_share is not None:
        return
    read, step = training_input.reader(records), max(1, len(records) // _SAMPLED)
    sides = []
    for number in range(0, len(records), step):
        header = image_files.image_header(read(tf.constant(number, tf.int64))[0].numpy())
        sides.append(min(header.height, header.width))
    middle = int(np.median(sides)) if sides else 0
    if middle > _WIDE * job.network.input_size:
        log.warning(
            "Half of the images have a shorter side of %d pixels or more, of which native windows of %d show little, "
            "while evaluation shows it all; set recipe.window_share=[0.7,1.0]",
            middle,
            job.network.input_size,
        )


def read_records(job: TrainingJob) -> Records:
    """Returns where the examples of each split are, without those that the job leaves out, and with its targets."""
    records = Records(example_files.read_index(job.train_files), example_files.read_index(job.validation_files))
    if job.left_out and not job.sees_unlabelled:
        path, value = job.left_out.sources, job.left_out.value
        seen = {role: leave_out.seen(path, role, value) for role in Records._fields}
        records = Records(*(index.select(seen[role]) for role, index in records._asdict().items()))
    return records.with_targets(job.targets)


@contextlib.contextmanager
def record_run(job: TrainingJob, records: Records) -> Iterator[mlflow_runs.Run]:
    """Opens the job's MLflow run, and closes it with how the training ended."""
    server = job.tracking
    run = mlflow_runs.open_run(server.uri, server.experiment, job.key, job.name, server.artifacts)
    recipe = job.model_dump(include={"network", "recipe", "transform"})
    run.log_recipe({**recipe, **carried_over(job), "classes": ", ".join(job.classes)})
    counts = {split: len(index) for split, index in records._asdict().items()}
    # MLflow keeps the counts of the first run of a name and fingerprint.
    name = f"marco without {job.left_out.value}" if job.left_out else "marco"
    run.log_data(name=name, counts=counts, **job.data.model_dump())
    # Tags, since a training may be resumed on another engine and MLflow's parameters never change.
    run.set_tags({f"engine.{name}": str(value) for name, value in dataclasses.asdict(job.engine).items()})
    if job.left_out:
        run.set_tags({mlflow_runs.LEFT_OUT: f"{job.left_out.attribute} {job.left_out.value}"})
    try:
        yield run
    except errors.Interrupted:
        run.close("KILLED")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close()


def carried_over(job: TrainingJob) -> dict[str, dict[str, float]]:
    """Returns what the rule for batch sizes makes of the recipe's numbers, by section; empty where it is off."""
    if job.recipe.stated_for_batch is None:
        return {}
    stated, effective = dataclasses.asdict(job.recipe), dataclasses.asdict(job.recipe.effective())
    changed = {name: value for name, value in effective.items() if value != stated[name] and value is not None}
    return {"effective": {**changed, "batch_norm_momentum": effective_network(job).batch_norm_momentum}}


def effective_network(job: TrainingJob) -> networks.Network:
    """Returns the job's network, whose batch norms keep as much of their moving statistics per image as stated."""
    momentum = job.recipe.kept_per_step(job.network.batch_norm_momentum)
    return dataclasses.replace(job.network, batch_norm_momentum=momentum)


def train(
    job: TrainingJob, running: engines.Running, records: Records, run: mlflow_runs.Run | None = None
) -> tuple[keras.Model, training.TrainingResult]:
    """Returns the trained network and how training ended; with `run`, logs curves to it and shows a progress bar."""
    network, policy = effective_network(job), job.engine.dtype_policy
    model = networks.build(network, num_classes=len(job.classes), seed=job.recipe.seed, dtype_policy=policy)
    if job.targets.raw_labels:
        model = layers.with_raw_head(model, len(job.targets.raw_labels), job.recipe.seed)
    weights.initialise(model, job.network, job.classes)
    listeners: dict[str, Callable[..., None]] = {}
    with contextlib.ExitStack() as bars:
        if run:
            advance = bars.enter_context(progress("Training", job.recipe.effective().steps, "steps"))
            listeners = {
                "on_resume": lambda step: advance(step, earlier=True),
                "on_step": advance,
                "on_metrics": run.log_curves,
            }
        return model, training.train(
            model,
            job.recipe,
            input_size=job.network.input_size,
            train_records=records.train,
            validation_records=records.validation,
            checkpoint_directory=job.checkpoints,
            evaluate_first=job.network.initial != networks.RANDOM,
            engine=job.engine,
            running=running,
            **listeners,
        )


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The temperature, and the expected calibration error (0 to 1) without and with it on the same examples."""

    temperature: float
    error_before: float
    error_after: float


def calibrate(model: keras.Model, job: TrainingJob, records: example_files.RecordIndex) -> Calibration:
    """Fits the temperature of `model` on all examples of `records`, as training reads them.

    It is shrunk towards that of the model that training began with, which is kept where the examples are few.

    `model`: from float32 [batch, input_size, input_size, 3] in [-1, 1] to logits, with or without auxiliary head. It
    runs as it is exported, with batch norms folded and in float32, in this process alone, whatever engine trained it.
    """
    folded = layers.fold(classifier.logits_only(model))

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return folded(pixels, training=False)

    size, batch_size = job.network.input_size, job.recipe.batch_size
    batches = training_input.evaluation_batches(records, size=size, batch_size=batch_size)
    parts = []
    with progress("Calibrating", len(records)) as advance:
        for pixels, batch_labels in batches:
            real = batch_labels.numpy() != training_input.PADDING
            parts.append((forward(pixels).numpy()[real], batch_labels.numpy()[real]))
            advance(int(real.sum()))
    logits, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    start = weights.initial_temperature(job.network.initial)
    temperature = calibration.fit_temperature(logits, labels, start)
    if len(labels) < calibration.ENOUGH_EXAMPLES:
        enough = f"{calibration.ENOUGH_EXAMPLES} are wanted"
        log.info("The temperature stays %.3f: there are %d images to fit one to, and %s", start, len(labels), enough)
    elif not 1.01 * calibration.LOWEST < temperature < 0.99 * calibration.HIGHEST:
        log.warning("The temperature is at its limit: of %d images nearly all are right, or wrong", len(labels))
    before, after = (
        calibration.expected_calibration_error(softmax(logits / divisor, axis=1), labels)
        for divisor in (1.0, temperature)
    )
    log.info("Temperature %.3f: expected calibration error %.4f, %.4f without", temperature, after, before)
    return Calibration(temperature, before, after)


def describe_pictures(directory: str, records: Records) -> None:
    """Adds what the training pictures look like to the exported model, and how far those of validation are from them.

    Up to `_DESCRIBED` pictures of each split, evenly spread, are passed through the exported network. Nothing is added
    where there are few with a label, or if the model has no ONNX model.
    """
    path, enough = f"{directory}/{onnx_network.MODEL}", novelty.ENOUGH_PICTURES
    views = []
    if min(map(len, records)) >= enough and store.exists(path):
        metadata = json.loads(store.read_bytes(f"{directory}/{model_directory.METADATA}"))
        network = onnx_network.OnnxNetwork(store.read_bytes(path), pixels.Preparation.recorded(metadata))
        views = _described(network, records)
    if not views or min(len(labels) for _, _, labels in views) < enough:
        needed = f"{enough} of each split and an ONNX model are needed"
        log.info("Images unlike the training pictures will not be flagged: %s", needed)
        return
    (features, statistics, labels), (held_out_features, held_out_statistics, _) = views
    try:
        reference = novelty.fit(features, statistics, labels)
        reference = novelty.limited(reference, held_out_features, held_out_statistics)
    except errors.InputError as error:
        log.warning("Images unlike the training pictures will not be flagged: %s", error)
        return
    store.write_bytes(f"{directory}/{novelty.FILE}", reference.to_bytes())


def _described(network: onnx_network.OnnxNetwork, records: Records) -> list[list[np.ndarray]]:
    """Returns features, statistics and labels of some pictures of each split, without those whose label is hidden."""
    views = []
    with progress("Describing", sum(min(_DESCRIBED, len(index)) for index in records)) as advance:
        for index in records:
            read, parts = training_input.reader(index), []
            numbers = np.unique(np.linspace(0, len(index) - 1, _DESCRIBED).astype(int))
            for batch in np.array_split(numbers, -(-len(numbers) // 64)):
                examples = [read(tf.constant(number, tf.int64)) for number in batch]
                described = network.features_and_statistics([encoded.numpy() for encoded, _ in examples])
                parts.append((*described, np.array([int(training_input.class_of(label)) for _, label in examples])))
                advance(len(batch))
            joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
            views.append([array[joined[-1] != training_input.PADDING] for array in joined])
    return views


def write_model(
    model: keras.Model,
    network: networks.Network,
    transform: settings.Transform,
    name: str,
    directory: str,
    classes: Sequence[str],
    temperature: float = 1.0,
    raw_labels: Sequence[str] = (),
) -> None:
    """Exports the trained network for serving, with the Transform step's shrink in front and its temperature.

    `raw_labels`: the names of the outputs of its raw head, if it has one.
    """
    side, quality = transform.shorter_side, transform.quality
    classifier.export(
        model,
        directory,
        classes=classes,
        input_size=network.input_size,
        preprocess=(lambda image: preprocessing.shrink(image, side, quality)) if side else None,
        temperature=temperature,
        raw_labels=raw_labels,
        metadata={
            "name": name,
            **network.facts(),
            **({"shrink": {"shorter_side": side, "quality": quality}} if side else {}),
        },
    )
