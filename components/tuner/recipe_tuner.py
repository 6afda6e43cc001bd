"""A KerasTuner whose trials are trainings of ours, each with its own checkpoints and MLflow run."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.oracle import Oracle

from components.trainer import job as jobs
from components.tuner.options import by_section
from components.tuner.oracles import HYPERBAND_ROUNDS
from marco_model.engines.start import start
from marco_model.errors import DivergedError, InputError, Interrupted

log = logging.getLogger(__name__)


class _Interrupted(Interrupted, keras_tuner.errors.FatalError):
    """KerasTuner takes every other error for the trial's own and goes on with the next."""


class _Refused(InputError, keras_tuner.errors.FatalError):
    """As above."""


class RecipeTuner(BaseTuner):
    """Searches values for a job's recipe and network; what was found is kept in the job's folder of checkpoints.

    A search that was killed goes on with the trial that it was in, from its last checkpoint.
    """

    def __init__(self, oracle: Oracle, job: jobs.Job, steps: int) -> None:
        """Takes the job of which trials are made; each is trained for `steps` steps, evaluated ten times."""
        self._job, self._steps = job, steps
        self._running, self._counts = start(job.engine), jobs.count(job)
        super().__init__(oracle, directory=job.checkpoints, project_name="search")

    def search_space_summary(self, extended: bool = False) -> None:
        """Says what is searched, where TFX has KerasTuner print it."""
        log.info("Searching %s", ", ".join(parameter.name for parameter in self.oracle.get_space().space))

    def results_summary(self, num_trials: int = 10) -> None:
        """Says what was found."""
        (best,) = self.oracle.get_best_trials(1)
        log.info("Best is trial %s, accuracy %.3f: %s", best.trial_id, best.score, _shown(best.hyperparameters.values))

    def run_trial(self, trial: Any, **_: Any) -> dict[str, float]:
        """Trains with a trial's values; returns the best accuracy on the evaluation split."""
        values = dict(trial.hyperparameters.values)
        rounds = values.pop("tuner/epochs", HYPERBAND_ROUNDS)
        job = trial_job(self._job, values, max(1, self._steps * rounds // HYPERBAND_ROUNDS), str(trial.trial_id))
        log.info("Trial %s: %s", trial.trial_id, _shown(values))
        try:
            with jobs.tracked(job, self._counts) as run:
                run.set_tags({"tuning": self._job.key})
                _, trained = jobs.train(job, self._running, self._counts, run)
        except DivergedError as error:
            log.info("Trial %s failed: %s", trial.trial_id, error)
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Interrupted as stopped:
            raise _Interrupted(str(stopped), stopped.signal) from stopped
        except InputError as error:
            raise _Refused(str(error)) from error
        log.info("Trial %s: accuracy %.3f", trial.trial_id, trained.accuracy)
        return {"accuracy": trained.accuracy}


def _shown(values: dict[str, Any]) -> str:
    named = {name: value for name, value in values.items() if not name.startswith("tuner/")}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in named.items()
    )


def trial_job(job: jobs.Job, values: dict[str, Any], steps: int, trial: str) -> jobs.Job:
    """Returns the job of one trial: other values, `steps` steps, a name and a folder of its own.

    Raises `InputError` where the values don't go together.
    """
    sections = by_section(values)
    every = max(1, steps // 10)
    recipe = dataclasses.replace(
        job.recipe, **{"steps": steps, "evaluate_every": every, "checkpoint_every": every, **sections["recipe"]}
    )
    return dataclasses.replace(
        job,
        key=f"{job.key}-{trial}",
        name=f"{job.name}-trial-{trial}",
        recipe=recipe,
        network=dataclasses.replace(job.network, **sections["network"]),
        checkpoints=f"{job.checkpoints}/trial-{trial}",
    )
