"""Vertex AI Pipelines as a `pipelines.backend.Backend`, over its REST API (`components.vertex.api`)."""

import datetime
import hashlib
import json
import re
import zoneinfo
from pathlib import Path
from typing import Any

from components import settings
from components.vertex import api, endpoints, options as vertex_options
from marco_model.errors import InputError
from pipelines import backend

_CONSOLE = "https://console.cloud.google.com/vertex-ai/pipelines"
_NOTE = "marco-schedule"
"""The label of a schedule's runs that holds a hash of what the schedule was made from."""


class VertexBackend:
    """Vertex AI Pipelines in a project and region; requests are repeated by `Api`, creations happen once."""

    options = " --target vertex"
    cron_fields = "minute hour day month weekday, such as 'TZ=Europe/Berlin 0 3 * * 1'"
    schedule_noun = "schedule"
    patience = 0.0

    def __init__(self, place: vertex_options.Vertex) -> None:
        self._api = api.Api(place)
        self.poll = self._api.pace.look

    def read_package(self, path: Path) -> backend.Package:
        """As `Backend.read_package`: a .json file."""
        fix = "give the .json file that marco compile --target vertex wrote"
        package = backend.read_package(path, json.loads, "pipeline compiled for Vertex AI", fix)
        if "defaultPipelineRoot" not in package.spec:
            raise InputError(f"{path} is not a pipeline compiled for Vertex AI; {fix}")
        return package

    def read_cron(self, text: str) -> tuple[str, str]:
        """As `Backend.read_cron`: five fields, after a time zone where it is not UTC."""
        advice = "write minute, hour, day, month and weekday, as in 'TZ=Europe/Berlin 0 3 * * 1' for Mondays at three"
        match = re.fullmatch(r"(?:CRON_)?TZ=(\S+)\s+(.*)", text.strip())
        zone, expression = match.groups() if match else ("", text.strip())
        try:
            if zone:
                zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise backend.wrong_cron(text, str(error).strip("'\""), advice) from error
        words = backend.explain_cron(text, expression, 5, advice)
        return (f"TZ={zone} " if zone else "") + " ".join(expression.split()), f"{words}, {zone or 'UTC'}"

    def upload(self, package: backend.Package) -> str:
        """As `Backend.upload`: a run carries the package, so there is nothing to upload."""
        return ""

    def start(self, package: backend.Package, name: str | None, submission: backend.Submission) -> str:
        """As `Backend.start`; where an answer is lost, the run is not started twice."""
        now = datetime.datetime.now(datetime.timezone.utc)
        run = f"{endpoints.label(package.name)[:40]}-{now:%Y%m%d%H%M%S%f}"
        request = {
            "parent": self._api.place.parent,
            "pipeline_job": pipeline_job(package.spec, name or package.name, submission),
            "pipeline_job_id": run,
        }
        self._api.ensure(lambda: self._job(run), lambda: self._api.act("Pipeline", "create_pipeline_job", request))
        return run

    def run_status(self, run: str, steps: tuple[str, ...]) -> backend.RunStatus:
        """As `Backend.run_status`."""
        job, place = self._job(run), self._api.place
        if job is None:
            raise InputError(f"there is no run {run!r} in {place.project}, {place.location}; fix its id")
        names = set(job.pipeline_spec.get("root", {}).get("dag", {}).get("tasks", {}))
        tasks = [task for task in job.job_detail.task_details if task.task_name in names]
        state = job.state.name.removeprefix("PIPELINE_STATE_")
        return backend.RunStatus(state, [_step_status(task) for task in tasks], _error_message(job))

    def log_link(self, run: str) -> str:
        """As `Backend.log_link`."""
        place = self._api.place
        return f"{_CONSOLE}/locations/{place.location}/runs/{run}?project={place.project}"

    def schedules(self) -> list[backend.ScheduleStatus]:
        """As `Backend.schedules`: those of the region."""
        request = {"parent": self._api.place.parent}
        return [
            backend.ScheduleStatus(
                schedule.name.rsplit("/", 1)[1],
                schedule.display_name,
                schedule.cron,
                "on" if schedule.state.name == "ACTIVE" else schedule.state.name.lower(),
                str(schedule.create_pipeline_job_request.pipeline_job.labels.get(_NOTE, "")),
            )
            for schedule in self._api.list_all("Schedule", "list_schedules", request, "schedules")
        ]

    def schedule_note(self, plan: backend.Plan) -> str:
        """As `Backend.schedule_note`: a hash, because labels are short."""
        content = [plan.cron, plan.package.spec, vars(plan.submission), plan.max_concurrency, "active"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def create_schedule(self, plan: backend.Plan, note: str) -> str:
        """As `Backend.create_schedule`; where an answer is lost, the schedule is not made twice."""
        parent = self._api.place.parent
        job = pipeline_job(plan.package.spec, plan.name, plan.submission, {_NOTE: note})
        schedule = {
            "display_name": plan.name,
            "cron": plan.cron,
            # The first limits how many runs are started at a time, the second how many are going on.
            "max_concurrent_run_count": plan.max_concurrency,
            "max_concurrent_active_run_count": plan.max_concurrency,
            "allow_queueing": False,
            "create_pipeline_job_request": {"parent": parent, "pipeline_job": job},
        }

        def identity() -> str | None:
            current = (plan.name, note, "on")
            matches = (item for item in self.schedules() if (item.name, item.note, item.state) == current)
            return next((item.identity for item in matches), None)

        request = {"parent": parent, "schedule": schedule}
        return self._api.ensure(identity, lambda: self._api.act("Schedule", "create_schedule", request))

    def delete_schedule(self, identity: str) -> None:
        """As `Backend.delete_schedule`; it may be deleted already."""
        request = {"name": f"{self._api.place.parent}/schedules/{identity}"}
        self._api.ensure(
            lambda: True if self._read("Schedule", "get_schedule", request["name"]) is None else None,
            lambda: self._api.act("Schedule", "delete_schedule", request),
        )

    def _job(self, run: str) -> Any | None:
        return self._read("Pipeline", "get_pipeline_job", f"{self._api.place.parent}/pipelineJobs/{run}")

    def _read(self, service: str, method: str, name: str) -> Any | None:
        """Returns the resource of this name, None where there is none."""
        try:
            return self._api.read(service, method, {"name": name})
        except api.Refused as error:
            if error.status == 404:
                return None
            raise


def place(project: str | None, location: str | None, address: str | None) -> vertex_options.Vertex:
    """Returns a project and region, at `address` if it is not None; raises `InputError` if one of them is missing."""
    if not (project and location):
        raise InputError(f"--project is {project} and --location {location}; Vertex AI needs both")
    values = {"project": project, "location": location, "api": address or ""}
    return settings.parse(vertex_options.Vertex, values, "the options of Vertex AI", "vertex")


def pipeline_job(
    spec: dict[str, Any], name: str, submission: backend.Submission, labels: dict[str, str] | None = None
) -> Any:
    """Returns the message `PipelineJob` of a run of the compiled package `spec`."""
    if not submission.cache:
        spec = json.loads(json.dumps(spec))
        for task in spec["root"]["dag"]["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    content = {
        "displayName": name,
        "pipelineSpec": spec,
        "labels": {"marco-pipeline": endpoints.label(spec["pipelineInfo"]["name"]), **(labels or {})},
        "runtimeConfig": {
            "gcsOutputDirectory": submission.pipeline_root or spec["defaultPipelineRoot"],
            "parameterValues": submission.parameters,
        },
        "serviceAccount": submission.service_account or "",
    }
    return api.messages().PipelineJob.from_json(json.dumps(content))


def _step_status(task: Any) -> backend.StepStatus:
    ended = task.state.name == "SUCCEEDED"
    seconds = (task.end_time - task.start_time).total_seconds() if ended else None
    return backend.StepStatus(task.task_name, task.state.name, seconds, _error_message(task))


def _error_message(status: Any) -> str:
    return str(status.error.message) if status.error else ""
