"""Runs the graph on this machine: draws synthetic data where asked, shows a line a step, sums up."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from components.report.page import HTML_FILE
from components.settings import NONE, REGISTRY
from marco_model.errors import InputError
from marco_model.store import absolute
from pipelines import places, summary
from pipelines.configuration import Configuration

_RUNNING = re.compile(r"Component (\S+) is running\.")
_FINISHED = re.compile(r"Component (\S+) is finished\.")
_FAILED = re.compile(r"Execution \d+ failed\.")
_CACHED = re.compile(r"A cached execution \d+ is used\.")
# Loggers whose INFO lines are meant for people.
_OURS = ("marco_model", "marco_data", "components", "pipelines")

# Loggers that would print past the root's handlers.
_WITH_HANDLERS = ("absl", "tensorflow", "mlflow")


class _StepLines(logging.Handler):
    """Turns TFX's log records, and our own, into lines on stderr."""

    def __init__(self, steps: int) -> None:
        super().__init__(logging.INFO)
        self._steps = steps
        self._number = 0
        self._begun = 0.0
        self._cached = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if _FAILED.fullmatch(message):
            return  # The exception that follows says why.
        if record.name.startswith(_OURS) or record.levelno >= logging.ERROR:
            self._print(f"      {message.splitlines()[0]}")
        elif match := _RUNNING.fullmatch(message):
            self._number += 1
            self._begun, self._cached = time.monotonic(), False
            self._print(f"[{self._number}/{self._steps}] {match[1]}")
        elif _CACHED.fullmatch(message):
            self._cached = True
        elif _FINISHED.fullmatch(message):
            done = "unchanged, reused" if self._cached else f"done in {time.monotonic() - self._begun:.0f} s"
            self._print(f"      {done}")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step_lines(steps: int, log_file: pathlib.Path) -> Iterator[None]:
    """Shows a line a step on stderr while a pipeline of `steps` steps runs, and keeps the whole log in `log_file`."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.INFO)
    for name in _WITH_HANDLERS:
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    log_file.parent.mkdir(parents=True, exist_ok=True)
    whole = logging.FileHandler(log_file)
    whole.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = [whole, _StepLines(steps)]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before
        root.setLevel(level)
        whole.close()


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

    from components.champion import Judging, signature
    from components.trainer.job import TrainingParameters
    from marco_data.shards import fingerprint
    from marco_model.weights import initial_fingerprint
    from pipelines.configuration import label_scheme
    from pipelines.pipeline import create_pipeline
    from pipelines.places import lookup

    where = places.local(configuration, output)
    metadata_file = output.resolve() / "metadata.db"
    scheme = label_scheme(configuration.labels, source)
    content = fingerprint([source], configuration.data.overlay)
    parameters = TrainingParameters(source, content, initial_fingerprint(configuration.network.initial))
    wanted = lookup(configuration, scheme.classes, where)
    own = signature(wanted.settings, parameters.fingerprint, parameters.initial, parameters.steps)
    judging = Judging(wanted.to_beat(own), own)
    pipeline = create_pipeline(configuration, where, scheme, parameters, judging, metadata_file=metadata_file)
    with step_lines(len(pipeline.components), output / "run.log"):
        LocalDagRunner().run(pipeline)
        steps = summary.last_run(metadata_file, configuration.name)
    told = summary.summarize(steps, output)
    told["report_path"] = str(shutil.copyfile(told["report_path"], output.resolve() / HTML_FILE))
    summary.write_aside(output / "summary.json", told)
    return told


def _absolute(configuration: Configuration) -> Configuration:
    """Returns the configuration with absolute paths of its overlay and champion, of which the steps are told.

    The overlay is read first, so that errors come soon.
    """
    data, gate = configuration.data, configuration.gate
    if data.overlay:
        from marco_data.overlay import read_overlay

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
