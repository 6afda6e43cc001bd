"""ExampleGen: reads MARCO shards, checks every record, and writes Examples and what failed.

TFX's file-based ExampleGens do part of their work in a driver that Kubeflow Pipelines never starts. Here the data set's
fingerprint is a parameter instead: it enters the cache key, and the step runs again when the data has changed.
"""

from typing import Any

import apache_beam as beam
from tfx.components.util import examples_utils
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from components import artifacts
from components.example_gen import files
from components.example_gen.ingest import ingest
from components.settings import IngestOptions
from marco_data.shards import SPLITS
from marco_model.errors import InputError


@component(use_beam=True)
def MarcoExampleGen(
    examples: OutputArtifact[Examples],
    quarantine: OutputArtifact[artifacts.Quarantine],
    input_uri: Parameter[str],
    fingerprint: Parameter[str],
    options: Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `examples` with the splits `train` and `eval`, described as TFX's own ExampleGens do, and `quarantine`.

    `input_uri`: folder, file or glob of shards, local or `gs://`. `fingerprint`: that of `marco_data.shards` for the
    input and the overlay, or anything that changes with them. `options`: JSON of `components.settings.IngestOptions`.

    Raises `InputError` if too much was quarantined or a split is empty. TFX then deletes the outputs; the quarantine is
    kept beside them, under its name and `-kept`.
    """
    chosen = IngestOptions.model_validate_json(options)
    try:
        summary = ingest([input_uri], examples.uri, quarantine.uri, chosen, lambda: beam_pipeline)
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


def _require_splits(summary: dict[str, Any], input_uri: str) -> None:
    for split in SPLITS:
        if not summary["splits"][split]:
            raise InputError(
                f"the {split} split of {input_uri!r} is empty: {summary['read']} records read, "
                f"{summary['quarantined']} quarantined, {summary['left_out']} left out; add {split} shards, or split "
                "by hash"
            )
