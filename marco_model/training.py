"""Training from files to the best weights: resumes from its last checkpoint, stops early, reports as it goes.

`train` is the loop; `training_step.TrainingState` is what it trains, and an engine (`engines.py`) takes the steps. A
checkpoint is one file with every number of the state, independent of the engine that wrote it. Of the input it holds
only the number of steps, which with the recipe's seed gives the position in the data. SIGTERM and SIGINT end training
after the current step, with a checkpoint.
"""

import contextlib
import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import keras
import tensorflow as tf

from marco_model import checkpoints, engines, errors, layers, recipe as recipes, training_step
from marco_model.example_files import RecordIndex

log = logging.getLogger(__name__)

REPORTS = 5_000
"""The most reports of loss and accuracy in a training: reading them waits for the accelerator, and each is stored.

A loss that is no longer finite is found by the next report."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# What TensorFlow raises in a synchronous process when another one is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError, tf.errors.DeadlineExceededError)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """How training ended; `accuracy` is the best on the validation split, of the weights that the model now has.

    `history`: every evaluation, from the training's beginning. `streams`: steps by the asynchronous worker's stream
    that took them; empty with other engines.
    """

    steps: int
    best_step: int
    accuracy: float
    resumed_from: int
    history: list[checkpoints.Evaluated] = dataclasses.field(default_factory=list)
    streams: dict[int, int] = dataclasses.field(default_factory=dict)


class Notice:
    """`signal` is the number of the signal that was received, or 0."""

    signal = 0


def train(
    model: keras.Model,
    recipe: recipes.Recipe,
    *,
    input_size: int,
    train_records: RecordIndex,
    validation_records: RecordIndex,
    checkpoint_directory: str,
    evaluate_first: bool = False,
    engine: recipes.Engine = recipes.ONE_DEVICE,
    running: engines.Running | None = None,
    on_resume: Callable[[int], None] = lambda step: None,
    on_step: Callable[[], None] = lambda: None,
    on_metrics: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> TrainingResult:
    """Trains `model` in place and leaves the best averaged weights in it.

    Args:
        model: from float32 [batch, input_size, input_size, 3] in [-1, 1] to logits, or to a dict of heads' logits.
        recipe: how to train.
        input_size: side of the windows in pixels.
        train_records: of files of `tf.train.Example` with `image/encoded` and `image/class/label`, in any order; with
            the targets that the recipe asks for (`example_files.find_targets`).
        validation_records: the same, for early stopping and for choosing the best weights.
        checkpoint_directory: local or in an object store; where checkpoints are saved, and where training resumes from
            if it holds one. All processes of a cluster must see it.
        evaluate_first: whether the first weights count as the best so far, as those of a trained model should. Where
            no accuracy could replace them, nothing is trained.
        engine: where to train.
        running: the engine if it was started before, as clusters must be before TensorFlow is used.
        on_resume: called with the step from which training resumes, if it does.
        on_step: called after each step.
        on_metrics: called with a step and its metrics by name, as they come.

    Raises:
        InputError: the training split is smaller than a batch, the validation split is empty, the loss is no longer
            finite, the engine does not fit, or the checkpoint is of another network.
        Interrupted: SIGTERM or SIGINT was received; the last step is saved.
        ClusterError: another process of a synchronous cluster is gone, or sees other checkpoints.
    """
    running = running or engines.start(engine)
    recipe = recipe.effective()
    work = engines.Work(recipe, input_size, train_records, validation_records)
    _check(work, running.replicas)
    engines.synchronize_batch_norms(model, engine, running.replicas, recipe.batch_size)
    source_head = None
    if recipe.adversarial_weight:
        model, source_head = layers.with_source_head(model, len(train_records.targets.sources), recipe.seed)
    with running.strategy.scope():
        state = training_step.TrainingState(model, recipe, xla=engine.xla, source_head=source_head)
    try:
        run = _Run(state, work, running, checkpoint_directory, on_step, on_metrics)
        if run.step:
            on_resume(run.step)
        with defer_signals() as notice:
            if evaluate_first and not run.step:
                run.evaluate()
            run.to_the_end(notice)
    except _LOST as error:
        if running.replicas == 1 or engine.kind != "multi_worker":
            raise
        raise errors.ClusterError(
            f"another worker is gone ({errors.one_line(error.message)}); start all workers again to continue from the "
            f"last checkpoint in {checkpoint_directory}"
        ) from error
    state.put_best_into_model()
    return TrainingResult(run.step, run.best_step, run.best_accuracy, run.first, run.history, run.streams)


def _check(work: engines.Work, replicas: int) -> None:
    recipe = work.recipe
    if len(work.train) < recipe.batch_size:
        raise errors.InputError(
            f"the training split has {len(work.train)} images, less than recipe.batch_size {recipe.batch_size}; "
            "lower the batch size or add images"
        )
    if not len(work.evaluation):
        raise errors.InputError("the validation split has no images; raise its share or add validation shards")
    if recipe.batch_size % replicas:
        raise errors.InputError(
            f"recipe.batch_size {recipe.batch_size} cannot be shared by {replicas} replicas; give a multiple of it"
        )


class _Run:
    """A training run in progress; it continues from the newest checkpoint, if there is one."""

    def __init__(
        self,
        state: training_step.TrainingState,
        work: engines.Work,
        running: engines.Running,
        directory: str,
        on_step: Callable[[], None],
        on_metrics: Callable[[int, dict[str, float]], None],
    ) -> None:
        self._state, self._work, self._running, self._directory = state, work, running, directory
        self._on_step, self._on_metrics = on_step, on_metrics
        self.streams: dict[int, int] = {}
        # Without `evaluate_first`, step 0 is not evaluated.
        self._cannot_gain = False
        running.begin(state, work)
        saved = _agreed_checkpoint(directory, running)
        self.first = self.step = self._saved = saved.step
        self.best_step, self.best_accuracy, self.history = saved.best_step, saved.best_accuracy, list(saved.history)
        if saved.step:
            log.info("Resuming training from step %d of %d, in %s", self.step, work.recipe.steps, directory)
            state.restore(saved.values)
        self._reported = (self.step, time.monotonic())

    def to_the_end(self, notice: Notice) -> None:
        """Trains until the last step, until patience runs out, or until there is a signal."""
        recipe = self._work.recipe
        while self.step < recipe.steps and not self._out_of_patience() and not self._cannot_gain:
            until = min(_next(self.step, recipe.evaluate_every), _next(self.step, recipe.checkpoint_every))
            self._advance(min(until, recipe.steps), notice)
            ended = self.step == recipe.steps
            if self.step % recipe.evaluate_every == 0 or ended:
                self.evaluate()
            if self.step % recipe.checkpoint_every == 0 or ended or self._out_of_patience():
                self._save()
        _wait_for_everyone(self._running)

    def _advance(self, until: int, notice: Notice) -> None:
        results = self._running.steps(self.step, until)
        for result in results:
            self.step += 1
            if result.stream:
                self.streams[result.stream] = self.streams.get(result.stream, 0) + 1
            self._report(result)
            self._on_step()
            if any(self._running.of_everyone(notice.signal)):
                results.close()
                self._save()
                _wait_for_everyone(self._running)
                raise errors.Interrupted(
                    f"training stopped at step {self.step} of {self._work.recipe.steps}, which is saved; the same "
                    "command continues from there",
                    notice.signal or signal.SIGTERM,
                )

    def _report(self, result: engines.StepResult) -> None:
        recipe = self._work.recipe
        if self.step % report_every(recipe.steps) and self.step != recipe.steps:
            return
        loss, rate = float(result.loss), recipes.learning_rate_at(recipe, self.step - 1, self._work.steps_per_epoch)
        if not math.isfinite(loss):
            raise errors.DivergedError(
                f"the training loss is {loss} at step {self.step}; lower recipe.learning_rate, {rate} now"
            )
        step, begun = self._reported
        self._reported = (self.step, time.monotonic())
        metrics = {
            "train/loss": loss,
            "train/accuracy": float(result.accuracy),
            "train/learning_rate": rate,
            "train/images_per_second": (self.step - step) * recipe.batch_size / (self._reported[1] - begun),
        }
        self._on_metrics(self.step, metrics)

    def evaluate(self) -> None:
        """Evaluates the running average and keeps it if it is the best so far.

        Of equal accuracies, which a small validation split gives often, that with the lower loss is better. But the
        weights of an earlier model that training began with give way only to an accuracy that is higher by more than
        one image: one image may be chance, and a lower loss no more than confidence.
        """
        loss, accuracy, images = self._running.evaluate()
        chance = 1.5 / images
        if from_start := bool(self.history) and not self.best_step:
            better = accuracy > self.best_accuracy + chance
        else:
            least = min((past.loss for past in self.history if past.step == self.best_step), default=math.inf)
            better = (accuracy, -loss) > (self.best_accuracy, -least)
        self.history.append(checkpoints.Evaluated(self.step, loss, accuracy))
        if better:
            self._state.keep_best()
            self.best_step, self.best_accuracy = self.step, accuracy
        self._on_metrics(self.step, {"validation/loss": loss, "validation/accuracy": accuracy})
        log.info("Step %d: validation accuracy %.3f, best %.3f", self.step, accuracy, self.best_accuracy)
        if from_start and not better and accuracy > self.best_accuracy:
            log.info("The first weights stay the best: a gain of one image may be chance")
        self._cannot_gain = not self.step and accuracy + chance > 1
        if self._cannot_gain:
            log.warning(
                "Nothing is trained: the first weights label %d of %d validation images right, and a gain of one image "
                "may be chance; validate on more images, or on more that these weights get wrong",
                round(accuracy * images),
                images,
            )
        elif self._out_of_patience():
            log.info("Stopping early: no gain in %d steps", self.step - self.best_step)
        self._reported = (self.step, time.monotonic())

    def _out_of_patience(self) -> bool:
        return self.step - self.best_step >= self._work.recipe.patience * self._work.recipe.evaluate_every

    def _save(self) -> None:
        if self.step == self._saved:
            return
        if self._running.leads:
            values = self._state.values()
            saved = checkpoints.Checkpoint(self.step, self.best_step, self.best_accuracy, values, self.history)
            checkpoints.save(self._directory, saved)
        self._saved = self.step
        self._reported = (self.step, time.monotonic())


def report_every(steps: int) -> int:
    """Returns how many steps lie between two reports of a training of `steps`: 10, or more in a long one."""
    return max(10, -(-steps // REPORTS))


def _next(step: int, every: int) -> int:
    """Returns the first multiple of `every` after `step`."""
    return (step // every + 1) * every


def _wait_for_everyone(running: engines.Running) -> None:
    """Waits until every process of the training has come here: one that ends takes its connections away.

    Without it the last exchange may fail for the others, and a cluster may end all as soon as one of them has ended.
    Whoever is first out of this may break it for the rest, which is harmless.
    """
    with contextlib.suppress(tf.errors.OpError):
        running.of_everyone(1)


def _agreed_checkpoint(directory: str, running: engines.Running) -> checkpoints.Checkpoint:
    """Returns the newest checkpoint that all processes of the training can read; step 0 without one.

    Raises `ClusterError` if some processes see none and others do, or if one cannot read that of the earliest step.
    """
    saved = checkpoints.newest(directory) or checkpoints.NOTHING
    steps = running.of_everyone(saved.step)
    agreed = min(steps)
    if saved.step > agreed > 0:
        saved = checkpoints.newest(directory, agreed) or saved
    if len(set(running.of_everyone(saved.step))) > 1:
        _wait_for_everyone(running)
        raise errors.ClusterError(
            f"the workers see checkpoints of different steps in {directory} ({', '.join(map(str, steps))}; 0 for "
            "none); give all of them the same folder, or start all again once its storage shows the same everywhere"
        )
    return saved


# Signals


@contextlib.contextmanager
def defer_signals() -> Iterator[Notice]:
    """Yields a notice that SIGTERM or SIGINT fills in; the second signal acts as it would have without this.

    Outside the main thread, where Python does not allow signal handlers, the notice stays empty.
    """
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def receive(number: int, frame: FrameType | None) -> None:
        notice.signal = number
        log.info("Received %s: finishing this step and saving; another ends at once", signal.Signals(number).name)
        restore()

    for number in SIGNALS:
        signal.signal(number, receive)
    try:
        yield notice
    finally:
        restore()
