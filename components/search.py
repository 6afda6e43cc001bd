"""A search for better values of a job's recipe and network: the trials, and the oracles that suggest them.

KerasTuner's own oracles draw on this machine. `VizierOracle` asks Vertex AI Vizier
(https://cloud.google.com/vertex-ai/docs/vizier/overview).
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator
from typing import Any

import keras_tuner
from google.api_core import exceptions, retry
from google.auth.exceptions import GoogleAuthError
from keras_tuner.engine import hyperparameters as hp
from keras_tuner.engine.trial import Trial, TrialStatus

from components.settings import Tuning, kind_of
from components.trainer import execution, job as jobs
from components.vertex import api
from marco_model import engines, errors

OBJECTIVE = keras_tuner.Objective("accuracy", "max")
HYPERBAND_ROUNDS = 27
"""The longest trial in hyperband's units; the shortest has one."""

_SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE", "reverse_log": "UNIT_REVERSE_LOG_SCALE"}
_CALL_SECONDS = 30.0
_RETRY_SECONDS = 60.0
"""How long a call to Vizier is tried again while it can't be reached: a search of days outlives a short outage."""
_SUGGESTION_SECONDS = 900.0

log = logging.getLogger(__name__)


def run_search(job: jobs.TrainingJob) -> tuple[dict[str, Any], list[dict[str, Any]]]:
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


def search_job(job: jobs.TrainingJob) -> jobs.TrainingJob:
    """Returns a bound job with the name and the folder of a search; trials of the same search share them."""
    return job.named("search", job.identity("search")[:16], job.checkpoints.rpartition("/")[0])


def trial_job(job: jobs.TrainingJob, values: dict[str, Any], steps: int, trial: str) -> jobs.TrainingJob:
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

    def __init__(self, oracle: keras_tuner.Oracle, job: jobs.TrainingJob, steps: int) -> None:
        """Takes the job of which trials are made; each is trained for `steps` steps, evaluated ten times."""
        self._job, self._steps = job, steps
        self._running, self._records = engines.start(job.engine), execution.read_records(job)
        super().__init__(oracle, directory=job.checkpoints, project_name="search")

    def run_trial(self, trial: Trial, **_: Any) -> dict[str, float]:
        """Trains with a trial's values; returns the best accuracy on the validation split."""
        values = dict(trial.hyperparameters.values)
        rounds = values.pop("tuner/epochs", HYPERBAND_ROUNDS)
        job = trial_job(self._job, values, max(1, self._steps * rounds // HYPERBAND_ROUNDS), str(trial.trial_id))
        log.info("Trial %s: %s", trial.trial_id, _describe(values))
        try:
            records = self._records.with_targets(job.targets)
            with execution.record_run(job, records) as run:
                run.set_tags({"tuning": self._job.key})
                _, trained = execution.train(job, self._running, records, run)
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


def parameter_spec(parameter: Any) -> dict[str, Any]:
    """Returns Vizier's `ParameterSpec` of one of the hyperparameters that `search_space` makes.

    Numbers to choose from are searched as such, other choices as categories by their text.
    """
    name = parameter.name
    if isinstance(parameter, hp.Choice) and not parameter.ordered:
        return {"parameter_id": name, "categorical_value_spec": {"values": [str(value) for value in parameter.values]}}
    spec = {"parameter_id": name, "scale_type": _SCALES[getattr(parameter, "sampling", "linear")]}
    if isinstance(parameter, hp.Choice):
        return {**spec, "discrete_value_spec": {"values": sorted({float(value) for value in parameter.values})}}
    kind = "integer_value_spec" if isinstance(parameter, hp.Int) else "double_value_spec"
    return {**spec, kind: {"min_value": parameter.min_value, "max_value": parameter.max_value}}


def value_of(parameter: Any, suggestion: float | str) -> Any:
    """Returns a suggestion as a value of the hyperparameter: of its type, within its limits or among its values."""
    if isinstance(suggestion, str):
        return next(value for value in parameter.values if str(value) == suggestion)
    if isinstance(parameter, hp.Choice):
        return min(parameter.values, key=lambda value: abs(value - suggestion))
    value = min(max(suggestion, parameter.min_value), parameter.max_value)
    return round(value) if isinstance(parameter, hp.Int) else value


def search_of(spec: Any) -> tuple[Any, ...]:
    """Returns what makes two studies' specifications the same search; the service may fill in the rest."""
    kinds = ("double_value_spec", "integer_value_spec", "categorical_value_spec", "discrete_value_spec")
    limits = set()
    for parameter in spec.parameters:
        kind = next(kind for kind in kinds if kind in parameter)
        limit = getattr(parameter, kind)
        values = tuple(limit.values) if "values" in type(limit).meta.fields else (limit.min_value, limit.max_value)
        limits.add((parameter.parameter_id, kind, values))
    return limits, {(metric.metric_id, metric.goal) for metric in spec.metrics}


class VizierOracle(keras_tuner.Oracle):
    """An oracle whose search is a study of Vizier's, with its default algorithm.

    The study named `study` in `project` (an id or a number) and `region` (such as `europe-west4`) is created or, if it
    exists, continued: its ended trials count towards `max_trials`, and the trial that was pending is suggested again,
    whether or not the local folder of the search still exists. A failed trial is reported as infeasible.

    `client`: a `google.cloud.aiplatform_v1.VizierServiceClient`; None makes one with Application Default Credentials.
    `options`: `objective`, `hyperparameters`, `max_trials` and `seed` as KerasTuner's own oracles take them. Vizier
    draws by itself and takes no seed.

    Raises:
        InputError: project or region is missing, Vizier can't be reached or refuses, or the study exists with another
            search space or objective. Any later call raises it too.
    """

    def __init__(self, *, project: str, region: str, study: str, client: Any = None, **options: Any) -> None:
        if not (project and region):
            raise errors.InputError(f"Vizier got project {project!r} and region {region!r}; give both")
        super().__init__(allow_new_entries=False, tune_new_entries=False, **options)
        self._place = f"project {project}, region {region}"
        self._names: dict[str, str] = {}  # From our trial's id to the name of Vizier's.
        self._settled = False
        self._client_id = "tuner0"
        with self._reaching():
            endpoint = {"api_endpoint": f"{region}-aiplatform.googleapis.com"}
            self._client = client or api.messages().VizierServiceClient(client_options=endpoint)
        self._study = self._open(f"projects/{project}/locations/{region}", study)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Returns a trial to run. Vizier suggests the same to the same `tuner_id` until it has ended."""
        if not self._settled:
            self._settle()
            self._settled = True
        self._client_id = tuner_id
        return super().create_trial(tuner_id)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns KerasTuner's `status` and `values` of Vizier's next suggestion; STOPPED when it has no more."""
        request = {"parent": self._study, "suggestion_count": 1, "client_id": self._client_id}
        with self._reaching():
            operation = self._client.suggest_trials(request=request, **_patience())
            suggestions = operation.result(timeout=_SUGGESTION_SECONDS).trials
        if not suggestions:
            return {"status": TrialStatus.STOPPED}
        if suggestions[0].name in self._names.values():
            return {"status": TrialStatus.IDLE}  # Another worker continues what this one left behind.
        self._names[trial_id] = suggestions[0].name
        return {"status": TrialStatus.RUNNING, "values": self._values(suggestions[0])}

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Notes how a trial ended, then reports it to Vizier; if killed in between, the next start does."""
        super().end_trial(trial)
        self._report(self.trials[trial.trial_id])

    def get_state(self) -> dict[str, Any]:
        """Returns KerasTuner's state and the names of Vizier's trials."""
        return {**super().get_state(), "vizier_trials": self._names}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned."""
        super().set_state(state)
        self._names = dict(state["vizier_trials"])

    def reload(self) -> None:
        """Reads what was saved.

        KerasTuner writes a trial before the list of trials, and lists one that has ended as ongoing till the next
        begins. After a kill in between, the former is dropped for Vizier to suggest again, the latter not run again.
        """
        super().reload()
        for trial_id in set(self.trials) - set(self.start_order):
            del self.trials[trial_id]
        self._retry_queue[:] = [trial_id for trial_id in self._retry_queue if trial_id not in self.end_order]

    def _open(self, parent: str, display_name: str) -> str:
        goal = "MAXIMIZE" if self.objective.direction == "max" else "MINIMIZE"
        specs = [parameter_spec(entry) for entry in self.hyperparameters.space if not isinstance(entry, hp.Fixed)]
        spec = api.messages().StudySpec(metrics=[{"metric_id": self.objective.name, "goal": goal}], parameters=specs)
        expected = api.messages().Study(display_name=display_name, study_spec=spec)
        with self._reaching():
            try:
                study = self._client.create_study(request={"parent": parent, "study": expected}, **_patience())
            except exceptions.AlreadyExists:
                request = {"parent": parent, "display_name": display_name}
                study = self._client.lookup_study(request=request, **_patience())
        if search_of(study.study_spec) != search_of(spec):
            raise errors.InputError(
                f"the Vizier study {display_name!r} in {self._place} searches another space or objective; "
                "name another study, or delete that one"
            )
        return str(study.name)

    def _settle(self) -> None:
        """Makes our list of ended trials and Vizier's the same."""
        state = api.messages().Trial.State
        with self._reaching():
            trials = list(self._client.list_trials(request={"parent": self._study}, **_patience()))
        ours = {name: trial_id for trial_id, name in self._names.items()}
        for theirs in sorted(trials, key=lambda trial: int(trial.name.rpartition("/")[2])):
            ended = theirs.state in (state.SUCCEEDED, state.INFEASIBLE)
            trial_id = ours.get(theirs.name)
            if trial_id is None and ended:
                self._adopt(theirs, theirs.state == state.SUCCEEDED)
            elif trial_id in self.end_order and not ended:
                self._report(self.trials[trial_id])

    def _adopt(self, theirs: Any, succeeded: bool) -> None:
        trial_id = f"{len(self.trials):0{len(str(self.max_trials))}d}"
        space = self.hyperparameters.copy()
        space.values = self._values(theirs)
        trial = Trial(space, trial_id, TrialStatus.FAILED, theirs.infeasible_reason or None)
        if succeeded:
            measured = {metric.metric_id: metric.value for metric in theirs.final_measurement.metrics}
            trial.status = TrialStatus.COMPLETED
            trial.metrics.register(self.objective.name, direction=self.objective.direction)
            trial.metrics.update(
                self.objective.name, measured[self.objective.name], step=theirs.final_measurement.step_count
            )
            self.score_trial(trial)
        self._names[trial_id], self.trials[trial_id] = theirs.name, trial
        self.start_order.append(trial_id)
        self.end_order.append(trial_id)
        self._record_values(trial)
        self._save_trial(trial)
        self.save()

    def _report(self, trial: Trial) -> None:
        request: dict[str, Any] = {"name": self._names[trial.trial_id]}
        if trial.status == TrialStatus.COMPLETED and math.isfinite(trial.score):
            metric = {"metric_id": self.objective.name, "value": trial.score}
            request["final_measurement"] = {"step_count": trial.best_step or 0, "metrics": [metric]}
        elif trial.status in (TrialStatus.COMPLETED, TrialStatus.FAILED):
            reason = (trial.message or f"{self.objective.name} is not finite").strip().splitlines()[-1]
            request |= {"trial_infeasible": True, "infeasible_reason": reason[:500]}
        else:
            return
        with self._reaching():
            self._client.complete_trial(request=request, **_patience())

    def _values(self, theirs: Any) -> dict[str, Any]:
        values = {parameter.parameter_id: parameter.value for parameter in theirs.parameters}
        space = {entry.name: entry for entry in self.hyperparameters.space}
        return {name: value_of(entry, values[name]) for name, entry in space.items() if name in values}

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turns what Google's libraries raise into one line that names the place and the fix."""
        log_in = "log in by `gcloud auth application-default login`, or run as a service account"
        fixes = {
            GoogleAuthError: log_in,
            exceptions.Unauthorized: log_in,
            exceptions.Forbidden: "check the project, enable its Vertex AI API and give your account Vertex AI User",
            exceptions.NotFound: "check the project and the region, and that nobody deleted the study",
            exceptions.ClientError: "fix what it names",
        }
        try:
            yield
        except (exceptions.GoogleAPIError, GoogleAuthError, concurrent.futures.TimeoutError) as error:
            later = "check the region and the network, then start again: the search continues"
            fix = next((fix for kind, fix in fixes.items() if isinstance(error, kind)), later)
            message = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
            raise errors.InputError(f"Vizier in {self._place}: {message}; {fix}") from error


def _patience() -> dict[str, Any]:
    return {"retry": retry.Retry(timeout=_RETRY_SECONDS), "timeout": _CALL_SECONDS}
