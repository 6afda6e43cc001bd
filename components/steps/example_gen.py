"""MARCO's ExampleGen: a plain component, so that it runs alike on every runner.

TFX's file-based ExampleGens do part of their work in a driver that Kubeflow Pipelines never starts. Here the data set's
fingerprint is a parameter instead: it enters the cache key, and the step runs again when the data has changed.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, channel_utils, component_spec, standard_artifacts

from components.artifacts import Quarantine
from components.example_gen import files
from components.example_gen.ingest import ingest
from components.settings import LOCAL_BEAM_ARGS, IngestOptions, rules_from_json, rules_to_json
from marco_data.shards import SPLITS
from marco_model.errors import InputError
from marco_model.labels import LabelScheme


class Executor(BaseBeamExecutor):
    """Runs `ingest` on the pipeline's Beam options, and describes its outputs as TFX's own ExampleGens do."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads `input_uri`, writes `examples` and `quarantine`.

        Raises `InputError` where too much was quarantined or a split is empty. TFX then deletes the outputs; the
        quarantine is kept beside them, under its name and `-kept`.
        """
        del input_dict
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        quarantine = artifact_utils.get_single_instance(output_dict["quarantine"])
        options = IngestOptions(
            split_by=exec_properties["split_by"],
            eval_share=exec_properties["eval_share"],
            max_quarantined=exec_properties["max_quarantined"],
            max_pixels=exec_properties["max_pixels"],
            imager_rules=rules_from_json(exec_properties["imager_rules"]),
            shard_bytes=exec_properties["shard_bytes"],
            decode_workers=exec_properties["decode_workers"],
            label_scheme=LabelScheme.from_json(exec_properties["label_scheme"]),
            overlay=exec_properties["overlay"],
        )
        input_uri = exec_properties["input_uri"]
        try:
            summary = ingest([input_uri], examples.uri, quarantine.uri, options, self._pipeline)
            _require_splits(summary, input_uri)
        except InputError as error:
            kept = f"{quarantine.uri.rstrip('/')}-kept"
            files.copy_folder(quarantine.uri, kept)
            raise InputError(str(error).replace(quarantine.uri, kept)) from error
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
        for name in ("read", "written", "quarantined", "left_out"):
            quarantine.set_int_custom_property(name, summary[name])
        quarantine.set_int_custom_property("relabelled", summary["relabelled"]["total"])

    def _pipeline(self) -> beam.Pipeline:
        if self._beam_pipeline_args or self._make_beam_pipeline_fn:
            return self._make_beam_pipeline()
        return beam.Pipeline(argv=list(LOCAL_BEAM_ARGS))


def _require_splits(summary: dict[str, Any], input_uri: str) -> None:
    for split in SPLITS:
        if not summary["splits"][split]:
            raise InputError(
                f"the {split} split of {input_uri!r} is empty: {summary['read']} records read, "
                f"{summary['quarantined']} quarantined, {summary['left_out']} left out; add {split} shards, or split "
                "by hash"
            )


class MarcoExampleGenSpec(component_spec.ComponentSpec):
    """Parameters and outputs of `MarcoExampleGen`."""

    PARAMETERS = {  # noqa: RUF012 - TFX's own way to declare them
        "input_uri": component_spec.ExecutionParameter(type=str),
        "fingerprint": component_spec.ExecutionParameter(type=str),
        "split_by": component_spec.ExecutionParameter(type=str),
        "eval_share": component_spec.ExecutionParameter(type=float),
        "max_quarantined": component_spec.ExecutionParameter(type=float),
        "max_pixels": component_spec.ExecutionParameter(type=int),
        "imager_rules": component_spec.ExecutionParameter(type=str),
        "shard_bytes": component_spec.ExecutionParameter(type=int),
        "decode_workers": component_spec.ExecutionParameter(type=int),
        "label_scheme": component_spec.ExecutionParameter(type=str),
        "overlay": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}  # noqa: RUF012
    OUTPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "quarantine": component_spec.ChannelParameter(type=Quarantine),
    }


class MarcoExampleGen(base_beam_component.BaseBeamComponent):
    """Reads MARCO shards, checks every record, writes Examples with the splits `train` and `eval` and a quarantine."""

    SPEC_CLASS = MarcoExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        input_uri: str | RuntimeParameter,
        fingerprint: str | RuntimeParameter,
        options: IngestOptions | None = None,
    ) -> None:
        """Makes the step.

        Args:
            input_uri: folder, file or glob of shards, local or `gs://`.
            fingerprint: `marco_data.shards.fingerprint([input_uri], overlay)`, or anything that changes with the data
                and the overlay.
            options: checks, splits and limits; by default those of `IngestOptions`.
        """
        options = options or IngestOptions()
        examples = channel_utils.as_channel([standard_artifacts.Examples()])
        quarantine = channel_utils.as_channel([Quarantine()])
        super().__init__(
            spec=MarcoExampleGenSpec(
                input_uri=input_uri,
                fingerprint=fingerprint,
                split_by=options.split_by,
                eval_share=float(options.eval_share),
                max_quarantined=float(options.max_quarantined),
                max_pixels=options.max_pixels,
                imager_rules=rules_to_json(options.imager_rules),
                shard_bytes=options.shard_bytes,
                decode_workers=options.decode_workers,
                label_scheme=options.label_scheme.to_json(),
                overlay=options.overlay,
                examples=examples,
                quarantine=quarantine,
            )
        )
