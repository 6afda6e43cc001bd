import pandas as pd
import pytest

from components.evaluations import encoded_images
from marco_model.errors import InputError

SHARD = "data_tfrecord-00000-of-00001"


@pytest.fixture
def examples(tmp_path, record):
    import tensorflow as tf

    folder = tmp_path / "Split-eval"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / SHARD)) as writer:
        for index in range(4):
            writer.write(record(index, 0, colour=(index * 20, 0, 0)).SerializeToString())
    return str(tmp_path)


def rows(*indices):
    return pd.DataFrame({"shard": SHARD, "index": list(indices)})


def test_images_come_in_the_order_asked_for(examples, jpeg):
    assert encoded_images(examples, "eval", rows(3, 0, 3)) == [jpeg((60, 0, 0)), jpeg((0, 0, 0)), jpeg((60, 0, 0))]
    assert encoded_images(examples, "eval", rows()) == []


def test_a_missing_record_is_named(examples):
    with pytest.raises(InputError, match="no record 4"):
        encoded_images(examples, "eval", rows(1, 4))
    with pytest.raises(InputError, match=r"Split-train.*not there"):
        encoded_images(examples, "train", rows(1))
