"""`tuner_fn` of TFX's Tuner: from what TFX hands over to a search."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from typing import Any

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.oracle import Oracle
from tfx.components.tuner.component import TunerFnResult

from components.settings import Tuning, by_section, kind_of
from components.trainer import training_job
from components.trainer.run import job_of
from components.trainer.training_job import Job
from marco_model.engines import start
from marco_model.errors import DivergedError, InputError, Interrupted

OBJECTIVE = keras_tuner.Objective("accuracy", "max")
HYPERBAND_ROUNDS = 27
"""The longest trial in hyperband's units; the shortest has one."""


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


def oracle(tuning: Tuning, study: str) -> Oracle:
    """Returns the oracle; `study` names the search where it is kept outside, as Vizier does."""
    told = {"objective": OBJECTIVE, "hyperparameters": search_space(tuning), "seed": tuning.seed}
    if tuning.oracle == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=tuning.trials, **told)
    if tuning.oracle == "bayesian":
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=tuning.trials, **told)
    if tuning.oracle == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=HYPERBAND_ROUNDS, **told)
    from components.vizier import VizierOracle

    return VizierOracle(project=tuning.project, region=tuning.region, study=study, max_trials=tuning.trials, **told)


log = logging.getLogger(__name__)


class _Interrupted(Interrupted, keras_tuner.errors.FatalError):
    """KerasTuner takes every other error for the trial's own and goes on with the next."""


class _Refused(InputError, keras_tuner.errors.FatalError):
    """As above."""


class RecipeTuner(BaseTuner):
    """Searches values for a job's recipe and network; what was found is kept in the job's folder of checkpoints.

    A search that was killed goes on with the trial that it was in, from its last checkpoint.
    """

    def __init__(self, oracle: Oracle, job: training_job.Job, steps: int) -> None:
        """Takes the job of which trials are made; each is trained for `steps` steps, evaluated ten times."""
        self._job, self._steps = job, steps
        self._running, self._counts = start(job.engine), training_job.count(job)
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
            with training_job.tracked(job, self._counts) as run:
                run.set_tags({"tuning": self._job.key})
                _, trained = training_job.train(job, self._running, self._counts, run)
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


def trial_job(job: training_job.Job, values: dict[str, Any], steps: int, trial: str) -> training_job.Job:
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


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Returns the tuner of `fn_args.custom_config`: the Trainer's, and `tuning`, the fields of `Tuning`.

    Raises `InputError` where trials would need a cluster.
    """
    config = fn_args.custom_config
    tuning = Tuning(**config["tuning"])
    job = search_job(job_of(fn_args, config), tuning)
    if job.engine.kind not in ("one_device", "mirrored"):
        raise InputError(f"engine.kind is {job.engine.kind}; trials run on one machine: take one_device or mirrored")
    return TunerFnResult(tuner=RecipeTuner(oracle(tuning, job.name), job, tuning.steps), fit_kwargs={"verbose": 0})


def search_job(job: Job, tuning: Tuning) -> Job:
    """Returns the job with the name and the folder of a search.

    Another space is another search; more trials go on with the same one.
    """
    named = dataclasses.asdict(tuning)
    del named["trials"]
    told = json.dumps([job.key, named], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()[:16]
    parent = job.checkpoints.rpartition("/")[0]
    return dataclasses.replace(job, key=key, name=f"search-{key[:8]}", checkpoints=f"{parent}/{key}")
