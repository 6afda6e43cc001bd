"""The TFX component of the gate."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, ClassVar

from absl import logging
from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.orchestration import data_types
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import champion, evaluations, gate, mlflow_runs, prediction_table, predictions
from components.artifacts import Decision
from components.gate import Verdict
from components.mlflow_runs import EVALUATION, FINGERPRINT
from components.published_models import on_this_machine
from components.settings import Rules
from components.steps.entrypoint import unstaged
from components.steps.evaluator import bless, split_files
from marco_model.errors import InputError, expected_errors
from marco_model.labels import CLASSES
from marco_model.model_directory import model_fingerprint
from marco_model.store import is_object

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
        run = mlflow_runs.run_of_model(model.uri)
        with on_this_machine(path_utils.serving_model_dir(model.uri)) as folder:
            candidate = model_fingerprint(folder)
        to_beat = champion.parse_champion(_present(run, exec_properties, candidate) or exec_properties["champion"])
        if not model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict["model_blessing"])):
            decided = Verdict(False, list(evaluations.slice_metrics(evaluation)["failures"]), [])
        elif to_beat is None:
            decided = Verdict(True, [FIRST], [])
        else:
            files = split_files(input_dict["examples"], exec_properties["split"])
            decided = self._against(to_beat, candidate, evaluation, files, output, exec_properties)
        io_utils.write_string_file(f"{output}/{gate.DECISION_FILE}", gate.decision_content(decided, to_beat))
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
    ) -> Verdict:
        classes, rules = json.loads(properties["classes"]), Rules(**json.loads(properties["rules"]))
        try:
            with on_this_machine(to_beat["model"]) as folder:
                if model_fingerprint(folder) == candidate:
                    return Verdict(True, [SERVING], [])
                columns = champion.champion_columns(folder, classes)
                # Workers elsewhere can't see this machine's copy.
                distant = is_object(to_beat["model"]) and not self._runs_here()
                self._predict(to_beat["model"] if distant else str(folder), files, output, properties["batch_size"])
        except InputError as error:
            name = champion.describe_champion(to_beat)
            reason = f"it could not be compared with the champion, {name}: {error}; {champion.REMEDY}"
            return Verdict(False, [reason], [])
        judged = [prediction_table.read(uri) for uri in (evaluation, output)]
        return gate.compare(*judged, columns, classes, rules)

    def _predict(self, model_path: str, files: list[str], output: str, batch_size: int) -> None:
        with expected_errors(), self._make_beam_pipeline() as pipeline:
            predictions.write_table(pipeline, files, model_path, batch_size, output)

    def _runs_here(self) -> bool:
        runners = [one.partition("=")[2] for one in self._beam_pipeline_args or [] if one.startswith("--runner=")]
        return not runners or runners[-1].rpartition(".")[2] in _LOCAL_RUNNERS


def _present(run: mlflow_runs.Run | None, properties: dict[str, Any], candidate: str) -> str:
    """Returns the registry's champion of now; empty for none, and where it has the fingerprint `candidate`."""
    name = properties["registered_model"]
    return champion.current_champion(run.tracking_uri, name, candidate) if run and name else ""


def _told(decided: Verdict, to_beat: dict[str, str] | None) -> dict[str, str]:
    """Returns the tags of the MLflow run that tell the decision."""
    reasons = "; ".join(decided.reasons)[:_TAG]
    return {
        "blessed": str(decided.blessed).lower(),
        "failures": "" if decided.blessed else reasons,
        "gate.reasons": reasons,
        "gate.champion": champion.describe_champion(to_beat) if to_beat else "",
    }


class ChampionGateSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "champion": component_spec.ExecutionParameter(type=str),
        "registered_model": component_spec.ExecutionParameter(type=str),
        "rules": component_spec.ExecutionParameter(type=str),
        "classes": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "batch_size": component_spec.ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS: ClassVar = {
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "decision": component_spec.ChannelParameter(type=Decision),
    }


class ChampionGate(base_beam_component.BaseBeamComponent):
    """Compares `model` with the champion on the same examples; outputs the final `blessing`, and `decision`."""

    SPEC_CLASS = ChampionGateSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        evaluation: types.BaseChannel,
        blessing: types.BaseChannel,
        champion: "str | data_types.RuntimeParameter" = "",
        registered_model: str = "",
        rules: Rules | None = None,
        classes: Sequence[str] = CLASSES,
        split: str = "eval",
        batch_size: int = 64,
    ):
        """Takes what the Evaluator took and gave; `champion` as `components.champion.write_champion`, empty for none.

        `registered_model`: whose champion in MLflow's registry counts where it is another one by then; empty where the
        registry does not say which model is to be beaten.

        Raises:
            InputError: `rules` name a class that is none of `classes`.
        """
        rules = rules or Rules()
        rules.recall_index(classes)
        spec = ChampionGateSpec(
            champion=champion,
            registered_model=registered_model,
            rules=json.dumps(dataclasses.asdict(rules), sort_keys=True),
            classes=json.dumps(list(classes)),
            split=split,
            batch_size=batch_size,
            examples=examples,
            model=model,
            evaluation=evaluation,
            model_blessing=blessing,
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            decision=types.Channel(type=Decision),
        )
        super().__init__(spec=spec)
