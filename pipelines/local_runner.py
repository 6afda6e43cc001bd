"""Runs the graph on this machine: draws synthetic data where asked, shows a line a step, sums up."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

from marco_model.errors import InputError
from pipelines import lineage, places, summary
from pipelines.configuration import Configuration
from pipelines.run_log import step_lines

log = logging.getLogger(__name__)


def run(configuration: Configuration, output: pathlib.Path) -> dict[str, Any]:
    """Runs the whole pipeline below `output` and returns the summary, which is also written to `output/summary.json`.

    Steps whose inputs and settings have not changed are not run again. Raises `InputError` where there are no data, or
    where a step refuses them.
    """
    output.mkdir(parents=True, exist_ok=True)
    source = _source(configuration, output)
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    from components.trainer.parameters import TrainingParameters
    from marco_data.shards import fingerprint
    from marco_model.initial import fingerprint as initial_fingerprint
    from pipelines.labelling import label_scheme
    from pipelines.pipeline import create_pipeline

    where = places.local(configuration, output)
    metadata_file = output.resolve() / "metadata.db"
    scheme = label_scheme(configuration.labels, source)
    parameters = TrainingParameters(source, fingerprint([source]), initial_fingerprint(configuration.network.initial))
    pipeline = create_pipeline(configuration, where, scheme, parameters, metadata_file=metadata_file)
    with step_lines(len(pipeline.components), output / "run.log"):
        LocalDagRunner().run(pipeline)
        steps = lineage.last_run(metadata_file, configuration.name)
    told = summary.of(steps)
    summary.write_aside(output / "summary.json", told)
    return told


def _source(configuration: Configuration, output: pathlib.Path) -> str:
    """Returns where the shards are; draws them first if the configuration asks for synthetic ones."""
    data = configuration.data
    if data.source:
        return data.source if "://" in data.source else str(pathlib.Path(data.source).resolve())
    if data.synthetic is None:
        raise InputError("the configuration names no data; give --data FOLDER, or data.synthetic in the preset")
    from marco_data.synthetic import Settings, synthesize

    wanted = data.synthetic
    settings = Settings(
        seed=wanted.seed,
        eval_share=wanted.eval_share,
        shorter_side=wanted.shorter_side,
        label_noise=wanted.label_noise,
    )
    folder = output.resolve() / "data"
    synthesize(folder, wanted.images, settings, overwrite=True)
    return str(folder)
