"""Small TFX artifacts as inputs of components: examples, and a model whose scores depend on the colour of an image."""

import io
import pathlib

import numpy as np
import pytest

from marco_data import contract
from marco_model.labels import CLASSES


def jpeg(colour, size=(48, 40)):
    """Returns an image of one colour, as JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, tuple(int(channel) for channel in colour)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def record():
    """Returns `record(index, label, …) -> Example` of ExampleGen's output; `changes` replaces features."""

    def make(index, label, *, institution="CSIRO", imager="Minstrel", colour=(90, 90, 90), without="", **changes):
        example = contract.build_example(
            encoded=jpeg(colour),
            image_format="JPEG",
            height=40,
            width=48,
            filename=f"{index}.jpg",
            image_id=index,
            label=label,
            label_text=CLASSES[label],
            label_raw=label,
            source=1,
        )
        features = example.features.feature
        for name, text in ((contract.INSTITUTION, institution), (contract.IMAGER, imager)):
            features[name].bytes_list.value.append(text.encode())
        for name, value in changes.items():
            features[name].Clear()
            values = features[name].bytes_list if isinstance(value, bytes) else features[name].int64_list
            values.value.append(value)
        if without:
            del features[without]
        return example

    return make


@pytest.fixture
def write_examples():
    """Returns `write(folder, {split: [Example, …]}) -> Examples artifact`."""

    def write(folder, splits, shards=1):
        import tensorflow as tf
        from tfx.types import artifact_utils, standard_artifacts

        artifact = standard_artifacts.Examples()
        artifact.uri = str(folder)
        artifact.split_names = artifact_utils.encode_split_names(list(splits))
        for split, examples in splits.items():
            directory = pathlib.Path(folder) / f"Split-{split}"
            directory.mkdir(parents=True)
            for shard in range(shards):
                name = directory / f"data_tfrecord-{shard:05d}-of-{shards:05d}"
                with tf.io.TFRecordWriter(str(name)) as writer:
                    for example in examples[shard::shards]:
                        writer.write(example.SerializeToString())
        return artifact

    return write


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory):
    """Returns a model artifact's folder: scores are a softmax over the mean colour, by both signatures.

    What is served beside them has the temperature 2 and the version `colours`.
    """
    import tensorflow as tf

    class ColourModel(tf.Module):
        def __init__(self):
            super().__init__()
            weights = np.array([[0, 8, 0, -4], [0, 0, 8, -4], [-8, 0, 0, 8]], np.float32)
            self.weights = tf.Variable(weights)
            self.names = tf.constant(CLASSES)

        def scores(self, encoded):
            image = tf.cast(tf.io.decode_image(encoded, 3, expand_animations=False), tf.float32) / 255.0
            return tf.nn.softmax(tf.linalg.matvec(self.weights, tf.reduce_mean(image, [0, 1]), transpose_a=True))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def images(self, image_bytes):
            scores = tf.map_fn(self.scores, image_bytes, fn_output_signature=tf.TensorSpec([4], tf.float32))
            return {
                "scores": scores,
                "classes": tf.tile(self.names[None], [tf.shape(scores)[0], 1]),
                "class": tf.gather(self.names, tf.argmax(scores, axis=1)),
                "probabilities": tf.nn.softmax(tf.math.log(scores) / 2),
                "version": tf.fill(tf.shape(scores)[:1], "colours"),
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def examples(self, examples):
            feature = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
            return self.images(tf.io.parse_example(examples, feature)["image/encoded"])

    model = ColourModel()
    folder = tmp_path_factory.mktemp("model")
    signatures = {"serving_default": model.images, "serving_examples": model.examples}
    tf.saved_model.save(model, str(folder / "Format-Serving"), signatures=signatures)
    return folder


@pytest.fixture(name="jpeg")
def jpeg_fixture():
    """Returns `jpeg(colour) -> bytes`."""
    return jpeg
