"""A search for better values of a job's recipe and network: the oracles, the trials, and what was found."""

import dataclasses
import logging
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from components.settings import Tuning, kind_of
from components.trainer import execution
from components.trainer.job import TrainingJob
from marco_model import engines, errors

OBJECTIVE = keras_tuner.Objective("accuracy", "max")
HYPERBAND_ROUNDS = 27
"""The longest trial in hyperband's units; the shortest has one."""

log = logging.getLogger(__name__)


def run_search(job: TrainingJob) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Searches as `job.tuning` says, or continues the same search where it stopped.

    Returns KerasTuner's configuration of the best values, and the number, the accuracy and the values of each complete
    trial, the best first. Raises `InputError` if trials would need several machines, `Interrupted` as training does.
    """
    tuning, job = job.tuning, search_job(job)
    if tuning is None:
        raise errors.InputError("the job has no tuning; set tuning.space")
    if job.engine.kind not in ("one_device", "mirrored"):
        raise errors.InputError(
            f"engine.kind is {job.engine.kind}; trials run on one machine: take one_device or mirrored"
        )
    tuner = RecipeTuner(oracle(tuning, job.name), job, tuning.steps)
    log.info("Searching %s", ", ".join(tuning.space))
    tuner.search(verbose=0)
    (best,) = tuner.oracle.get_best_trials(1)
    log.info("Best is trial %s, accuracy %.3f: %s", best.trial_id, best.score, _describe(best.hyperparameters.values))
    trials = [
        {"trial_id": trial.trial_id, "score": trial.score, **trial.hyperparameters.values}
        for trial in tuner.oracle.get_best_trials(tuner.oracle.max_trials)
        if trial.status == TrialStatus.COMPLETED and trial.hyperparameters.values
    ]
    return best.hyperparameters.get_config(), trials


def search_job(job: TrainingJob) -> TrainingJob:
    """Returns a bound job with the name and the folder of a search; trials of the same search share them."""
    return job.named("search", job.identity("search")[:16], job.checkpoints.rpartition("/")[0])


def trial_job(job: TrainingJob, values: dict[str, Any], steps: int, trial: str) -> TrainingJob:
    """Returns the job of one trial: its values, `steps` steps, and a key, name and folder of its own.

    Raises `InputError` if the values don't fit together.
    """
    every = max(1, steps // 10)
    changes = {
        "recipe": dataclasses.replace(job.recipe, steps=steps, evaluate_every=every, checkpoint_every=every),
        "key": f"{job.key}-{trial}",
        "name": f"{job.name}-trial-{trial}",
        "checkpoints": f"{job.checkpoints}/trial-{trial}",
    }
    return job.model_copy(update=changes).with_values(values)


def search_space(tuning: Tuning) -> keras_tuner.HyperParameters:
    """Returns KerasTuner's description of `tuning.space`; ints stay ints."""
    space = keras_tuner.HyperParameters()
    for name, parameter in tuning.space.items():
        if parameter.choices:
            space.Choice(name, list(parameter.choices))
        elif kind_of(name) is int:
            space.Int(name, *map(int, parameter.limits()), sampling=parameter.sampling)
        else:
            space.Float(name, *map(float, parameter.limits()), sampling=parameter.sampling)
    return space


def oracle(tuning: Tuning, study: str) -> keras_tuner.Oracle:
    """Returns the oracle; `study` names the search where it is kept outside, as in Vizier."""
    options = {"objective": OBJECTIVE, "hyperparameters": search_space(tuning), "seed": tuning.seed}
    if tuning.oracle == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=tuning.trials, **options)
    if tuning.oracle == "bayesian":
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=tuning.trials, **options)
    if tuning.oracle == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=HYPERBAND_ROUNDS, **options)
    from components.vizier import VizierOracle

    options["max_trials"] = tuning.trials
    return VizierOracle(project=tuning.project, region=tuning.region, study=study, **options)


class _Interrupted(errors.Interrupted, keras_tuner.errors.FatalError):
    """KerasTuner takes every other error for the trial's own and starts the next trial."""


class _Refused(errors.InputError, keras_tuner.errors.FatalError):
    """As above."""


class RecipeTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Searches values for a job's recipe and network, and keeps the results in the job's folder of checkpoints.

    A search that was killed continues with the trial that it was in, from its last checkpoint.
    """

    def __init__(self, oracle: keras_tuner.Oracle, job: TrainingJob, steps: int) -> None:
        """Takes the job of which trials are made; each is trained for `steps` steps, evaluated ten times."""
        self._job, self._steps = job, steps
        self._running, self._counts = engines.start(job.engine), execution.count(job)
        super().__init__(oracle, directory=job.checkpoints, project_name="search")

    def run_trial(self, trial: Trial, **_: Any) -> dict[str, float]:
        """Trains with a trial's values; returns the best accuracy on the evaluation split."""
        values = dict(trial.hyperparameters.values)
        rounds = values.pop("tuner/epochs", HYPERBAND_ROUNDS)
        job = trial_job(self._job, values, max(1, self._steps * rounds // HYPERBAND_ROUNDS), str(trial.trial_id))
        log.info("Trial %s: %s", trial.trial_id, _describe(values))
        try:
            with execution.record_run(job, self._counts) as run:
                run.set_tags({"tuning": self._job.key})
                _, trained = execution.train(job, self._running, self._counts, run)
        except errors.DivergedError as error:
            log.info("Trial %s failed: %s", trial.trial_id, error)
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except errors.Interrupted as stopped:
            raise _Interrupted(str(stopped), stopped.signal) from stopped
        except errors.InputError as error:
            raise _Refused(str(error)) from error
        log.info("Trial %s: accuracy %.3f", trial.trial_id, trained.accuracy)
        return {"accuracy": trained.accuracy}


def _describe(values: dict[str, Any]) -> str:
    named = {name: value for name, value in values.items() if not name.startswith("tuner/")}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in named.items()
    )
