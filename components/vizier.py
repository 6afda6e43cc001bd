"""Trials suggested by Vertex AI Vizier (https://cloud.google.com/vertex-ai/docs/vizier/overview)."""

import concurrent.futures
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras_tuner
from google.api_core import exceptions, retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import aiplatform_v1
from keras_tuner.engine import hyperparameters as hp
from keras_tuner.engine.trial import Trial, TrialStatus

from marco_model.errors import InputError

_SCALES = {"linear": "UNIT_LINEAR_SCALE", "log": "UNIT_LOG_SCALE", "reverse_log": "UNIT_REVERSE_LOG_SCALE"}


def parameter_spec(parameter: Any) -> dict[str, Any]:
    """Returns Vizier's `ParameterSpec` of a hyperparameter other than Fixed.

    A parameter with a step is searched as a list of values, unordered choices and booleans as categories by their text.
    Raises `InputError` for a conditional hyperparameter.
    """
    name = parameter.name
    if parameter.conditions:
        raise InputError(f"the hyperparameter {name} depends on another one; Vizier takes independent ones only")
    if isinstance(parameter, hp.Boolean) or (isinstance(parameter, hp.Choice) and not parameter.ordered):
        return {"parameter_id": name, "categorical_value_spec": {"values": [str(value) for value in parameter.values]}}
    spec = {"parameter_id": name, "scale_type": _SCALES[getattr(parameter, "sampling", "linear")]}
    if isinstance(parameter, hp.Choice) or _has_step(parameter):
        return {**spec, "discrete_value_spec": {"values": sorted({float(value) for value in parameter.values})}}
    kind = "integer_value_spec" if isinstance(parameter, hp.Int) else "double_value_spec"
    return {**spec, kind: {"min_value": parameter.min_value, "max_value": parameter.max_value}}


def value_of(parameter: Any, suggestion: float | str) -> Any:
    """Returns a suggestion as a value of the hyperparameter: of its type, within its limits or among its values."""
    if isinstance(suggestion, str):
        return next(value for value in parameter.values if str(value) == suggestion)
    if isinstance(parameter, hp.Choice) or _has_step(parameter):
        value = min(parameter.values, key=lambda value: abs(value - suggestion))
    else:
        value = min(max(suggestion, parameter.min_value), parameter.max_value)
    return round(value) if isinstance(parameter, hp.Int) else value


def _has_step(parameter: Any) -> bool:
    """Returns whether a number has a step; KerasTuner gives linear integers a step of 1 by default."""
    linear = isinstance(parameter, hp.Int) and parameter.sampling == "linear"
    return parameter.step is not None and not (linear and parameter.step == 1)


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


_CALL_SECONDS = 30.0
_RETRY_SECONDS = 60.0
"""How long a call is tried again while the service can't be reached: a search of days outlives a short outage."""
_SUGGESTION_SECONDS = 900.0


class VizierOracle(keras_tuner.Oracle):
    """An oracle whose search is a study of Vizier's, with its default algorithm.

    The study named `study` in `project` (an id or a number) and `region` (such as `europe-west4`) is created or, if it
    exists, continued: its ended trials count towards `max_trials`, and the trial that was pending is suggested again,
    whether or not the local folder of the search still exists. A failed trial is reported as infeasible.

    `client`: a `google.cloud.aiplatform_v1.VizierServiceClient`; None makes one with Application Default Credentials.
    `seed` is KerasTuner's; Vizier draws by itself and takes none.

    Raises:
        InputError: project or region is missing, Vizier can't be reached or refuses, a hyperparameter is conditional,
            or the study exists with another search space or objective. Any later call raises it too.
    """

    def __init__(
        self,
        *,
        project: str,
        region: str,
        study: str,
        objective: keras_tuner.Objective,
        hyperparameters: keras_tuner.HyperParameters,
        max_trials: int,
        client: Any = None,
        seed: int | None = None,
    ) -> None:
        if not (project and region):
            raise InputError(f"Vizier got project {project!r} and region {region!r}; give both")
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=False,
            tune_new_entries=False,
            seed=seed,
        )
        self._place = f"project {project}, region {region}"
        self._names: dict[str, str] = {}  # From our trial's id to the name of Vizier's.
        self._settled = False
        self._client_id = "tuner0"
        self._client = client or self._connect(region)
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

    def _connect(self, region: str) -> Any:
        with self._reaching():
            options = {"api_endpoint": f"{region}-aiplatform.googleapis.com"}
            return aiplatform_v1.VizierServiceClient(client_options=options)

    def _open(self, parent: str, display_name: str) -> str:
        goal = "MAXIMIZE" if self.objective.direction == "max" else "MINIMIZE"
        specs = [parameter_spec(entry) for entry in self.hyperparameters.space if not isinstance(entry, hp.Fixed)]
        spec = aiplatform_v1.StudySpec(metrics=[{"metric_id": self.objective.name, "goal": goal}], parameters=specs)
        expected = aiplatform_v1.Study(display_name=display_name, study_spec=spec)
        with self._reaching():
            try:
                study = self._client.create_study(request={"parent": parent, "study": expected}, **_patience())
            except exceptions.AlreadyExists:
                request = {"parent": parent, "display_name": display_name}
                study = self._client.lookup_study(request=request, **_patience())
        if search_of(study.study_spec) != search_of(spec):
            raise InputError(
                f"the Vizier study {display_name!r} in {self._place} searches another space or objective; "
                "name another study, or delete that one"
            )
        return str(study.name)

    def _settle(self) -> None:
        """Makes our list of ended trials and Vizier's the same."""
        state = aiplatform_v1.Trial.State
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
            raise InputError(f"Vizier in {self._place}: {message}; {fix}") from error


def _patience() -> dict[str, Any]:
    return {"retry": retry.Retry(timeout=_RETRY_SECONDS), "timeout": _CALL_SECONDS}
