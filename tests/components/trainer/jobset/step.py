"""The Trainer step of a training on several nodes, as a process of its own: `step.py FILE`."""

import json
import pathlib
import sys

from components.trainer import jobset_launch, training_job
from components.trainer.jobset import Pace
from marco_model.errors import exit_status

told = json.loads(pathlib.Path(sys.argv[1]).read_text())
with exit_status():
    jobset_launch.run(
        training_job.read(told["job"]), jobset_launch.placement(told["placement"]), pace=Pace(**told["pace"])
    )
