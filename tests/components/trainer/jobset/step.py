"""The Trainer step of a training on several nodes, as a process of its own: `step.py FILE`."""

import json
import pathlib
import sys

from components.trainer import job
from components.trainer.jobset import launch
from components.trainer.jobset.pace import Pace
from marco_model.errors import exit_status

told = json.loads(pathlib.Path(sys.argv[1]).read_text())
with exit_status():
    launch.run(job.read(told["job"]), launch.placement(told["placement"]), pace=Pace(**told["pace"]))
