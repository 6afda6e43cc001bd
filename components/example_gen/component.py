"""MARCO's ExampleGen: a plain component, so that it runs alike on every runner.

TFX's file-based ExampleGens do part of their work in a driver that Kubeflow Pipelines never starts. Here the data set's
fingerprint is a parameter instead: it enters the cache key, and the step runs again when the data has changed.
"""

from __future__ import annotations

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import channel_utils, component_spec, standard_artifacts

from components.example_gen.artifacts import Quarantine
from components.example_gen.executor import Executor
from components.example_gen.options import IngestOptions, rules_to_json


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
