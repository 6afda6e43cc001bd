"""Lets the champion predict what the candidate was judged by, decides between them, and writes the final blessing."""

import json
from typing import Any

from absl import logging
from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.cluster.entrypoint import unstaged
from components.evaluator import prediction_table, predictions, results
from components.evaluator.blessing import bless
from components.evaluator.executor import split_files
from components.gate import champion, comparison, decision, lookup
from components.gate.decide import Decision
from components.gate.rules import Rules
from components.mlflow_tracking import tracking
from components.mlflow_tracking.names import EVALUATION, FINGERPRINT
from components.pusher.storage import fingerprint, on_this_machine
from components.worker_errors import expected_errors
from marco_data.object_store import is_object
from marco_model.errors import InputError

Artifacts = dict[str, list[types.Artifact]]
FIRST = "there is no champion to beat: the thresholds alone decide"
SERVING = "it is the champion itself, which is serving already"
_LOCAL_RUNNERS = {"DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner", "FnApiRunner", "PrismRunner"}
_TAG = 5000  # Characters; MLflow refuses more than 8,000.


class Executor(base_beam_executor.BaseBeamExecutor):
    """A candidate that the Evaluator did not bless is not compared; without a champion the Evaluator's word stands."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Writes the decision, the blessing, and the tags of the MLflow run.

        Where the champion of now is another than `champion` says, and not the candidate itself, it is the one to beat.

        Raises:
            InputError: the candidate's predictions are not of these examples, MLflow cannot be reached, or its champion
                was never published.
            ClusterError: the service of the champion's bucket fails.
        """
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_uri(output_dict["decision"])
        evaluation = artifact_utils.get_single_uri(input_dict["evaluation"])
        run = tracking.run_of_model(model.uri)
        with on_this_machine(path_utils.serving_model_dir(model.uri)) as folder:
            candidate = fingerprint(folder)
        to_beat = champion.parsed(_present(run, exec_properties, candidate) or exec_properties["champion"])
        if not model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict["model_blessing"])):
            decided = Decision(False, list(results.slice_metrics(evaluation)["failures"]), [])
        elif to_beat is None:
            decided = Decision(True, [FIRST], [])
        else:
            files = split_files(input_dict["examples"], exec_properties["split"])
            decided = self._against(to_beat, candidate, evaluation, files, output, exec_properties)
        io_utils.write_string_file(f"{output}/{decision.DECISION_FILE}", decision.content(decided, to_beat))
        bless(artifact_utils.get_single_instance(output_dict["blessing"]), model, decided.blessed)
        (logging.info if decided.blessed else logging.warning)(
            "%s: %s.", "Blessed" if decided.blessed else "Not blessed", "; ".join(decided.reasons)
        )
        if run:
            run.set_tags({FINGERPRINT: candidate, EVALUATION: unstaged(evaluation), **_told(decided, to_beat)})

    def _against(
        self,
        to_beat: dict[str, str],
        candidate: str,
        evaluation: str,
        files: list[str],
        output: str,
        properties: dict[str, Any],
    ) -> Decision:
        classes, rules = json.loads(properties["classes"]), Rules(**json.loads(properties["rules"]))
        try:
            with on_this_machine(to_beat["model"]) as folder:
                if fingerprint(folder) == candidate:
                    return Decision(True, [SERVING], [])
                columns = champion.columns(folder, classes)
                # Workers elsewhere can't see this machine's copy.
                distant = is_object(to_beat["model"]) and not self._runs_here()
                self._predict(to_beat["model"] if distant else str(folder), files, output, properties["batch_size"])
        except InputError as error:
            told = f"it could not be compared with the champion, {champion.said(to_beat)}: {error}; {champion.MEND}"
            return Decision(False, [told], [])
        judged = [prediction_table.read(uri) for uri in (evaluation, output)]
        return comparison.compare(*judged, columns, classes, rules)

    def _predict(self, model_path: str, files: list[str], output: str, batch_size: int) -> None:
        with expected_errors(), self._make_beam_pipeline() as pipeline:
            predictions.write_table(pipeline, files, model_path, batch_size, output)

    def _runs_here(self) -> bool:
        runners = [one.partition("=")[2] for one in self._beam_pipeline_args or [] if one.startswith("--runner=")]
        return not runners or runners[-1].rpartition(".")[2] in _LOCAL_RUNNERS


def _present(run: tracking.Run | None, properties: dict[str, Any], candidate: str) -> str:
    """Returns the registry's champion of now; empty for none, and where it has the fingerprint `candidate`."""
    name = properties["registered_model"]
    return lookup.present(run.tracking_uri, name, candidate) if run and name else ""


def _told(decided: Decision, to_beat: dict[str, str] | None) -> dict[str, str]:
    """Returns the tags of the MLflow run that tell the decision."""
    reasons = "; ".join(decided.reasons)[:_TAG]
    return {
        "blessed": str(decided.blessed).lower(),
        "failures": "" if decided.blessed else reasons,
        "gate.reasons": reasons,
        "gate.champion": champion.said(to_beat) if to_beat else "",
    }
