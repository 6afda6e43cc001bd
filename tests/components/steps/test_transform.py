import numpy as np
import pytest
import tensorflow as tf

from components.steps import transform as transform_step
from components.steps.transform import preprocessing_fn
from marco_data import contract
from marco_data.contract import ENCODED, LABEL
from marco_model import preprocessing
from tests import small_training


@pytest.fixture(scope="module")
def encoded(real_images):
    return [path.read_bytes() for path in real_images.values()]


def transform(encoded, shorter_side):
    inputs = {ENCODED: tf.constant(encoded)[:, None], LABEL: tf.range(len(encoded), dtype=tf.int64)[:, None]}
    return preprocessing_fn(inputs, {"shorter_side": shorter_side, "quality": 95})


def test_large_networks_get_the_bytes_as_they_are(encoded):
    outputs = transform(encoded, 0)
    assert outputs[ENCODED].numpy().tolist() == encoded
    assert outputs[LABEL].numpy().tolist() == list(range(len(encoded)))


def test_small_networks_get_shrunk_jpegs_which_the_served_model_makes_too(encoded):
    outputs = transform(encoded, 240)
    for original, shrunk in zip(encoded, outputs[ENCODED].numpy(), strict=True):
        assert tf.io.extract_jpeg_shape(shrunk).numpy().tolist() == [240, 320, 3]
        assert len(shrunk) < len(original) / 2
        assert shrunk == preprocessing.shrink(tf.constant(original), 240, 95).numpy()


def test_shrinking_keeps_the_picture(encoded):
    """Compared with Pillow's box filter, which also averages areas."""
    import io

    from PIL import Image

    for original, shrunk in zip(encoded, transform(encoded, 240)[ENCODED].numpy(), strict=True):
        reference = np.asarray(Image.open(io.BytesIO(original)).resize((320, 240), Image.Resampling.BOX), np.float32)
        ours = tf.io.decode_jpeg(shrunk).numpy().astype(np.float32)
        assert np.abs(ours - reference).mean() < 4.0
        assert abs((ours - reference).mean()) < 2.0


class Unchanged:
    """In place of `tft.TFTransformOutput`: a graph that changes nothing."""

    def __init__(self, uri):
        pass

    def raw_feature_spec(self):
        return {ENCODED: tf.io.FixedLenFeature([], tf.string), LABEL: tf.io.FixedLenFeature([], tf.int64)}

    def transform_features_layer(self):
        return lambda inputs: inputs


def test_records_keep_what_tells_which_drop_they_show_and_when(tmp_path, monkeypatch):
    monkeypatch.setattr(transform_step.tft, "TFTransformOutput", Unchanged)
    source = tmp_path / "train.tfrecord"
    images = small_training.write_examples(source, 3)
    records = [contract.with_plate(data.numpy(), "03c3") for data in tf.data.TFRecordDataset(str(source))]
    with tf.io.TFRecordWriter(str(source)) as writer:
        for record in records:
            writer.write(record)
    (tmp_path / "out").mkdir()
    step = transform_step._TransformFile("")
    step.setup()
    ((_, (name, lengths)),) = step.process((str(source), str(tmp_path / "out")))
    written = [data.numpy() for data in tf.data.TFRecordDataset(str(tmp_path / "out" / name))]
    assert [len(data) for data in written] == lengths
    for number, data in enumerate(written):
        features = tf.train.Example.FromString(data).features.feature
        texts = {name: features[name].bytes_list.value[0] for name in (ENCODED, *contract.PLACE_FEATURES)}
        assert texts == {
            ENCODED: images[number],
            contract.FILENAME: f"{number}.jpg".encode(),
            contract.PLATE: b"03c3",
            contract.INSTITUTION: small_training.INSTITUTIONS[number // 2].encode(),
        }
        assert features[LABEL].int64_list.value[0] == number % 2
