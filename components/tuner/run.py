"""`tuner_fn` of TFX's Tuner: from what TFX hands over to a search."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from tfx.components.tuner.component import TunerFnResult

from components.trainer.job import Job
from components.trainer.run import job_of
from components.tuner.options import Tuning
from components.tuner.oracles import oracle
from components.tuner.recipe_tuner import RecipeTuner
from marco_model.errors import InputError


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
