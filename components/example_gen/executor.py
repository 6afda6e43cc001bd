"""The ingest as a TFX executor."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.example_gen import files
from components.example_gen.ingest import ingest
from components.example_gen.options import LOCAL_BEAM_ARGS, IngestOptions, rules_from_json
from marco_data.splits import SPLITS
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
