"""Recurring runs on Kubeflow Pipelines: one of a name, whatever was there before."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from marco_model.errors import InputError
from pipelines.kubeflow_client import pages, reaching
from pipelines.kubeflow_submission import Submission

_KUBEFLOW = "Kubeflow Pipelines"


def read_cron(text: str) -> tuple[str, str]:
    """Returns a cron expression as Kubeflow wants it, seconds first, and in words; five fields get a 0 in front.

    Raises `InputError` for what is no such expression.
    """
    from cronsim import CronSim, CronSimError

    fields = text.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    try:
        if len(fields) != 6:
            raise CronSimError("Wrong number of fields")
        # Kubeflow reads cron as robfig/cron 1 does: "?" is "*", Sunday is 0 alone, and L, W and # mean nothing.
        if re.search(r"[LW#](?![A-Z])|(?<![\w/*])7", fields[5]) or re.search(r"[LW#]", fields[3]):
            raise CronSimError("to Kubeflow Sunday is 0, and L, W and # mean nothing")
        read = CronSim(" ".join(fields).replace("?", "*"), datetime.datetime(2000, 1, 1))
        return " ".join(fields), read.explain()
    except CronSimError as error:
        said = str(error)
        raise InputError(
            f"--cron {text!r}: {said[:1].lower()}{said[1:]}; write second, minute, hour, day, month and weekday, as in "
            "'0 0 3 * * 1' for Mondays at three"
        ) from error


def ensure(
    client: Any,
    name: str,
    experiment: str,
    cron: str,
    pipeline: str,
    version: str,
    submission: Submission,
    max_concurrency: int = 1,
) -> tuple[str, str]:
    """Makes `name` the one recurring run of its name in the experiment, and returns its id and what was done.

    That is `unchanged`, `made` or `replaced`. The new one is made before the old ones go, so that at no moment there is
    none; where this is interrupted between, the next call removes what is too much.

    Raises what `pipelines.kubeflow_client.reaching` does.
    """
    wanted = {
        "cron": cron,
        "version": version,
        "parameters": submission.parameters,
        "pipeline_root": submission.pipeline_root or "",
        "service_account": submission.service_account or "",
        "max_concurrency": max_concurrency,
    }
    # Kubeflow shows neither all of it nor as it was given.
    note = json.dumps(wanted, sort_keys=True)
    with reaching(_KUBEFLOW):
        there = find(client, name, experiment)
        same = [one for one in there if one.description == note and one.mode == "ENABLE"]
        if same:
            for other in there:
                if other.recurring_run_id != same[0].recurring_run_id:
                    client.delete_recurring_run(other.recurring_run_id)
            return str(same[0].recurring_run_id), "unchanged"
        made = client.create_recurring_run(
            experiment_id=experiment,
            job_name=name,
            description=note,
            cron_expression=cron,
            max_concurrency=max_concurrency,
            no_catchup=True,
            pipeline_id=pipeline,
            version_id=version,
            **submission.config(),
        )
        for other in there:
            client.delete_recurring_run(other.recurring_run_id)
    return str(made.recurring_run_id), "replaced" if there else "made"


def remove(client: Any, name: str, experiment: str) -> int:
    """Deletes the recurring runs of this name and returns how many there were."""
    with reaching(_KUBEFLOW):
        there = find(client, name, experiment)
        for one in there:
            client.delete_recurring_run(one.recurring_run_id)
    return len(there)


def find(client: Any, name: str | None, experiment: str) -> list[Any]:
    """Returns the recurring runs of an experiment, all or those of a name."""
    listed = pages(client.list_recurring_runs, "recurring_runs", experiment_id=experiment)
    return [one for one in listed if name is None or one.display_name == name]
