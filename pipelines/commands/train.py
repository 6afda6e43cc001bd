"""`marco train`: one process of a training that a pipeline's Trainer set up."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    job: Annotated[str, typer.Argument(help="The job.json beside the checkpoints of a training; local or gs://.")],
    heartbeat: Annotated[
        str, typer.Option(help="A file that whoever started this keeps changing; when it rests, save and end.")
    ] = "",
    silence: Annotated[
        float, typer.Option(help="Seconds without a change after which --heartbeat rests.", min=1)
    ] = 180,
) -> None:
    """Take part in a training, or take it up again, without the pipeline around it.

    Every process of a cluster runs this with its own TF_CONFIG (docs/training.md); without a cluster it trains alone.

    Example: marco train runs/local/checkpoints/0123456789abcdef/job.json
    """
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("marco_model", "components"):
        logging.getLogger(ours).setLevel(logging.INFO)
    from components.trainer.jobset.heartbeat import end_with

    if heartbeat:
        end_with(heartbeat, silence)
    from components.trainer import job as jobs

    jobs.run(jobs.read(job))
