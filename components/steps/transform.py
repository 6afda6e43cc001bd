"""What TFX's Transform does to an example before training, and the step that writes the examples so transformed.

Transform itself writes the graph alone: its files would be one, compressed, of each split. Where the graph changes
nothing, training reads ExampleGen's own files.
"""

from collections.abc import Iterator

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tfx.dsl.component.experimental import annotations, decorators
from tfx.types import artifact_utils, standard_artifacts

from components import artifacts
from components.example_gen import files
from marco_data import contract
from marco_model import errors, example_files, preprocessing

BATCH = 32


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, int]) -> dict[str, tf.Tensor]:
    """Returns `image/encoded` (string [batch]) and `image/class/label` (int64 [batch]) for training.

    `custom_config["shorter_side"]` is 0, which leaves the encoded image as it is, or the pixels to which the shorter
    side is shrunk and re-encoded, so that the epochs of a small network don't pay for large images. The exported model
    does the same before scoring (`marco_model.preprocessing.shrink`). Decoded pixels are never written: half a million
    windows of 599×599×3 floats would be 2 TB.
    """
    encoded = tf.reshape(inputs[contract.ENCODED], [-1])
    shorter_side = custom_config["shorter_side"]
    if shorter_side:
        encoded = tf.map_fn(
            lambda image: preprocessing.shrink(image, shorter_side, custom_config["quality"]),
            encoded,
            fn_output_signature=tf.string,
            parallel_iterations=8,
        )
    return {contract.ENCODED: encoded, contract.LABEL: tf.reshape(inputs[contract.LABEL], [-1])}


@decorators.component(use_beam=True)
def Materializer(
    examples: annotations.InputArtifact[standard_artifacts.Examples],
    transform_graph: annotations.InputArtifact[standard_artifacts.TransformGraph],
    transformed_examples: annotations.OutputArtifact[standard_artifacts.Examples],
    beam_pipeline: annotations.BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `examples` as `transform_graph` makes them, with what is `KEPT`, and the index.

    There is a file for each of theirs, not compressed.
    """
    transformed_examples.split_names = examples.split_names
    pairs = []
    for split in artifact_utils.decode_split_names(examples.split_names):
        folder = artifact_utils.get_split_uri([transformed_examples], split)
        files.make_folder(folder)
        pairs += [(source, folder) for source in artifacts.split_files(examples, split)]
    with errors.expected_errors(), beam_pipeline as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(pairs)
            | "Spread" >> beam.Reshuffle()
            | "Transform" >> beam.ParDo(_TransformFile(transform_graph.uri))
            | "ByFolder" >> beam.GroupByKey()
            | "Index" >> beam.MapTuple(lambda folder, lengths: example_files.write_index(folder, dict(lengths)))
        )


KEPT = {
    contract.FILENAME: tf.io.FixedLenFeature([], tf.string, ""),
    contract.PLATE: tf.io.FixedLenFeature([], tf.string, ""),
    contract.INSTITUTION: tf.io.FixedLenFeature([], tf.string, ""),
    contract.IMAGER: tf.io.FixedLenFeature([], tf.string, ""),
    contract.LABEL_RAW: tf.io.FixedLenFeature([], tf.int64, example_files.UNKNOWN),
}
"""What else a training may learn of a record: the transformed example has it as the record has."""


class _TransformFile(beam.DoFn):
    """From a TFRecord file and a folder to the transformed file in this folder, and the lengths of its records."""

    def __init__(self, transform_graph: str) -> None:
        self._transform_graph = transform_graph

    def setup(self) -> None:
        """Loads the graph once per worker."""
        output = tft.TFTransformOutput(self._transform_graph)
        specification = {name: output.raw_feature_spec()[name] for name in (contract.ENCODED, contract.LABEL)}
        layer = output.transform_features_layer()
        self._transform = lambda serialized: {
            **layer(tf.io.parse_example(serialized, specification)),
            **tf.io.parse_example(serialized, KEPT),
        }

    def process(self, pair: tuple[str, str]) -> Iterator[tuple[str, tuple[str, list[int]]]]:
        """Yields the folder with the file's name and the lengths of its records, in their order."""
        source, folder = pair
        name = source.rpartition("/")[2]
        batches = tf.data.TFRecordDataset(source).batch(BATCH).map(self._transform).prefetch(1)
        writer = files.RecordWriter(f"{folder}/{name}")
        for batch in preprocessing.without_autotuning(batches).as_numpy_iterator():
            for values in zip(*batch.values(), strict=True):
                writer.write_record(_example(dict(zip(batch, values, strict=True))))
        writer.close()
        yield folder, (name, writer.lengths)


def _example(values: dict[str, bytes | int]) -> bytes:
    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
    return bytes(example.SerializeToString())
