"""Vertex AI Pipelines as a `pipelines.backend.Backend`, over its REST API (`components.vertex.api`)."""

import datetime
import hashlib
import json
import re
import zoneinfo
from pathlib import Path
from typing import Any

from components.vertex.api import Api, Refused
from components.vertex.options import Vertex
from marco_model.errors import InputError
from pipelines.backend import Package, RunStatus, ScheduleStatus, StepStatus, Submission, explain_cron, wrong_cron

_CONSOLE = "https://console.cloud.google.com/vertex-ai/pipelines"
_NOTE = "marco-schedule"
"""The label of a schedule's runs that holds a hash of what the schedule was made from."""


class VertexBackend:
    """Vertex AI Pipelines in a project and region; requests are repeated by `Api`, creations happen once."""

    options = " --target vertex"
    cron_fields = "minute hour day month weekday, such as 'TZ=Europe/Berlin 0 3 * * 1'"
    schedule_noun = "schedule"
    patience = 0.0

    def __init__(self, place: Vertex) -> None:
        self._api = Api(place)
        self.poll = self._api.pace.look

    def read_package(self, path: Path) -> Package:
        """As `Backend.read_package`: the .json file of `marco compile --target vertex`."""
        fix = "give the .json file that marco compile --target vertex wrote"
        if not path.is_file():
            raise InputError(f"there is no package {str(path)!r}; {fix}")
        content = path.read_bytes()
        try:
            spec = dict(json.loads(content))
            root = spec["root"]
            spec["defaultPipelineRoot"]
            return Package(
                path=path,
                name=spec["pipelineInfo"]["name"],
                version=hashlib.sha256(content).hexdigest()[:16],
                parameters=frozenset(root.get("inputDefinitions", {}).get("parameters", {})),
                steps=tuple(root["dag"]["tasks"]),
                spec=spec,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a pipeline compiled for Vertex AI; {fix}") from error

    def read_cron(self, text: str) -> tuple[str, str]:
        """As `Backend.read_cron`: five fields, after a time zone where it is not UTC."""
        return read_cron(text)

    def upload(self, package: Package) -> str:
        """As `Backend.upload`: a run carries the package, so there is nothing to upload."""
        return ""

    def start(self, package: Package, name: str | None, submission: Submission) -> str:
        """As `Backend.start`; where an answer is lost, the run is not started twice."""
        now = datetime.datetime.now(datetime.timezone.utc)
        run = f"{label_value(package.name)[:40]}-{now:%Y%m%d%H%M%S%f}"
        request = {
            "parent": self._api.place.parent,
            "pipeline_job": pipeline_job(package.spec, name or package.name, submission),
            "pipeline_job_id": run,
        }
        self._api.ensure(lambda: self._job(run), lambda: self._api.act("Pipeline", "create_pipeline_job", request))
        return run

    def run_status(self, run: str, steps: tuple[str, ...]) -> RunStatus:
        """As `Backend.run_status`."""
        job, place = self._job(run), self._api.place
        if job is None:
            raise InputError(f"there is no run {run!r} in {place.project}, {place.location}; fix its id")
        names = set(job.pipeline_spec.get("root", {}).get("dag", {}).get("tasks", {}))
        tasks = [task for task in job.job_detail.task_details if task.task_name in names]
        state = job.state.name.removeprefix("PIPELINE_STATE_")
        return RunStatus(state, [_step_status(task) for task in tasks], _error_message(job))

    def log_link(self, run: str) -> str:
        """As `Backend.log_link`."""
        place = self._api.place
        return f"{_CONSOLE}/locations/{place.location}/runs/{run}?project={place.project}"

    def ensure_schedule(
        self, name: str, cron: str, package: Package, submission: Submission, max_concurrency: int
    ) -> tuple[str, str]:
        """As `Backend.ensure_schedule`."""
        from google.cloud.aiplatform_v1.types import CreatePipelineJobRequest, Schedule

        content = json.dumps([cron, package.spec, vars(submission), max_concurrency], sort_keys=True)
        note = hashlib.sha256(content.encode()).hexdigest()[:32]
        before = {schedule.name for schedule in self._schedules(name)}
        job = pipeline_job(package.spec, name, submission, {_NOTE: note})
        schedule = Schedule(
            display_name=name,
            cron=cron,
            max_concurrent_run_count=max_concurrency,
            create_pipeline_job_request=CreatePipelineJobRequest(parent=self._api.place.parent, pipeline_job=job),
        )

        def existing() -> Any | None:
            return next((item for item in self._schedules(name) if _is_current(item, note)), None)

        request = {"parent": self._api.place.parent, "schedule": schedule}
        current = self._api.ensure(existing, lambda: self._api.act("Schedule", "create_schedule", request))
        for other in self._schedules(name):
            if other.name != current.name:
                self._delete(other.name)
        outcome = "unchanged" if current.name in before else "replaced" if before else "made"
        return current.name.rsplit("/", 1)[1], outcome

    def schedules(self) -> list[ScheduleStatus]:
        """As `Backend.schedules`: those of the region."""
        return [
            ScheduleStatus(
                schedule.name.rsplit("/", 1)[1],
                schedule.display_name,
                schedule.cron,
                "on" if schedule.state.name == "ACTIVE" else schedule.state.name.lower(),
            )
            for schedule in self._schedules(None)
        ]

    def remove_schedules(self, name: str) -> int:
        """As `Backend.remove_schedules`."""
        schedules = self._schedules(name)
        for schedule in schedules:
            self._delete(schedule.name)
        return len(schedules)

    def _job(self, run: str) -> Any | None:
        name = f"{self._api.place.parent}/pipelineJobs/{run}"
        try:
            return self._api.read("Pipeline", "get_pipeline_job", {"name": name})
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def _schedules(self, name: str | None) -> list[Any]:
        request = {"parent": self._api.place.parent}
        schedules = self._api.listed("Schedule", "list_schedules", request, "schedules")
        return [schedule for schedule in schedules if name is None or schedule.display_name == name]

    def _delete(self, schedule: str) -> None:
        """Deletes a schedule, which may be deleted already."""

        def is_deleted() -> bool | None:
            try:
                self._api.read("Schedule", "get_schedule", {"name": schedule})
            except Refused as error:
                if error.status == 404:
                    return True
                raise
            return None

        self._api.ensure(is_deleted, lambda: self._api.act("Schedule", "delete_schedule", {"name": schedule}))


def pipeline_job(spec: dict[str, Any], name: str, submission: Submission, labels: dict[str, str] | None = None) -> Any:
    """Returns the message `PipelineJob` of a run of the compiled package `spec`."""
    from google.cloud.aiplatform_v1.types import PipelineJob
    from google.protobuf import json_format

    content = json.loads(json.dumps(spec))
    if not submission.cache:
        for task in content["root"]["dag"]["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    body: dict[str, Any] = {
        "displayName": name,
        "pipelineSpec": content,
        "labels": {"marco-pipeline": label_value(spec["pipelineInfo"]["name"]), **(labels or {})},
        "runtimeConfig": {
            "gcsOutputDirectory": submission.pipeline_root or spec["defaultPipelineRoot"],
            "parameterValues": submission.parameters,
        },
        "serviceAccount": submission.service_account,
    }
    message = PipelineJob()
    json_format.ParseDict({key: value for key, value in body.items() if value}, message._pb)
    return message


def label_value(text: str) -> str:
    """Returns `text` as the value of a label."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def read_cron(text: str) -> tuple[str, str]:
    """Returns a cron expression as Vertex AI takes it, five fields after an optional time zone, and in words.

    Raises `InputError` for another text.
    """
    advice = "write minute, hour, day, month and weekday, as in 'TZ=Europe/Berlin 0 3 * * 1' for Mondays at three"
    match = re.fullmatch(r"(?:CRON_)?TZ=(\S+)\s+(.*)", text.strip())
    zone, expression = match.groups() if match else ("", text.strip())
    try:
        if zone:
            zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise wrong_cron(text, str(error).strip("'\""), advice) from error
    words = explain_cron(text, expression, 5, advice)
    return (f"TZ={zone} " if zone else "") + " ".join(expression.split()), f"{words}, {zone or 'UTC'}"


def _step_status(task: Any) -> StepStatus:
    ended = task.state.name == "SUCCEEDED"
    seconds = (task.end_time - task.start_time).total_seconds() if ended else None
    return StepStatus(task.task_name, task.state.name, seconds, _error_message(task))


def _error_message(status: Any) -> str:
    return str(status.error.message) if status.error else ""


def _is_current(schedule: Any, note: str) -> bool:
    labels = schedule.create_pipeline_job_request.pipeline_job.labels
    return str(labels.get(_NOTE, "")) == note and schedule.state.name == "ACTIVE"
