"""Runs the graph on this machine: draws synthetic data where asked, shows a line a step, sums up."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shutil
from typing import Any

from components.gate.rules import NONE, REGISTRY
from components.report.names import HTML_FILE
from marco_data.files import absolute
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
    configuration = _absolute(configuration)
    source = _source(configuration, output)
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    from components.gate.parameters import Judging
    from components.gate.signature import signature
    from components.trainer.parameters import TrainingParameters
    from marco_data.shards import fingerprint
    from marco_model.initial import fingerprint as initial_fingerprint
    from pipelines.judging import lookup
    from pipelines.labelling import label_scheme
    from pipelines.pipeline import create_pipeline

    where = places.local(configuration, output)
    metadata_file = output.resolve() / "metadata.db"
    scheme = label_scheme(configuration.labels, source)
    content = fingerprint([source], configuration.data.overlay)
    parameters = TrainingParameters(source, content, initial_fingerprint(configuration.network.initial))
    wanted = lookup(configuration, where)
    own = signature(wanted.settings, parameters.fingerprint, parameters.initial, parameters.steps)
    judging = Judging(wanted.to_beat(own), own)
    pipeline = create_pipeline(configuration, where, scheme, parameters, judging, metadata_file=metadata_file)
    with step_lines(len(pipeline.components), output / "run.log"):
        LocalDagRunner().run(pipeline)
        steps = lineage.last_run(metadata_file, configuration.name)
    told = summary.of(steps, output)
    told["report_path"] = str(shutil.copyfile(told["report_path"], output.resolve() / HTML_FILE))
    summary.write_aside(output / "summary.json", told)
    return told


def _absolute(configuration: Configuration) -> Configuration:
    """Returns the configuration with absolute paths of its overlay and champion, of which the steps are told.

    The overlay is read first, so that errors come soon.
    """
    data, gate = configuration.data, configuration.gate
    if data.overlay:
        from marco_data.relabelling.overlay import read_overlay

        read_overlay(data.overlay)
        data = data.model_copy(update={"overlay": absolute(data.overlay)})
    if gate.champion not in (REGISTRY, NONE):
        gate = dataclasses.replace(gate, champion=absolute(gate.champion))
    return configuration.model_copy(update={"data": data, "gate": gate})


def _source(configuration: Configuration, output: pathlib.Path) -> str:
    """Returns where the shards are; draws them first if the configuration asks for synthetic ones."""
    data = configuration.data
    if data.source:
        return absolute(data.source)
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
