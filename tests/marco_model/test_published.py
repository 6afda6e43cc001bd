import numpy as np
import pytest
import tensorflow as tf

from marco_model import load, model_directory, published, saved_model
from marco_model.errors import InputError


def test_a_checkpoint_is_read_as_tensorflow_reads_it():
    prefix = model_directory.published_directory() / "variables" / "variables"
    tensors, reader = published.read_checkpoint(prefix), tf.train.load_checkpoint(str(prefix))
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    del shapes["global_step"]  # The only one that is no float32.
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    for name in list(shapes)[::20]:
        np.testing.assert_array_equal(tensors[name], reader.get_tensor(name))


@pytest.mark.parametrize("count", [1, 300])
def test_a_checkpoint_of_this_tensorflow_is_read(tmp_path, count):
    values = {f"layer_{index}": tf.Variable(np.full((index % 3 + 1, 2), index, np.float32)) for index in range(count)}
    prefix = tf.train.Checkpoint(**values).write(str(tmp_path / "variables"))
    tensors = published.read_checkpoint(tmp_path / "variables")
    for name, variable in values.items():
        np.testing.assert_array_equal(tensors[f"{name}/.ATTRIBUTES/VARIABLE_VALUE"], variable.numpy())
    assert prefix.endswith("variables")


def test_a_damaged_checkpoint_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read .*No such file"):
        published.read_checkpoint(tmp_path / "variables")
    tf.train.Checkpoint(a=tf.Variable([1.0])).write(str(tmp_path / "variables"))
    index = tmp_path / "variables.index"
    index.write_bytes(index.read_bytes()[:-60])
    with pytest.raises(InputError, match="cannot be read"):
        published.read_checkpoint(tmp_path / "variables")


@pytest.mark.long
def test_the_published_scores_are_the_graphs_own(encoded, published_scores):
    directory = model_directory.published_directory()
    classifier = load.open_published_classifier()
    scores = classifier.score(encoded)
    np.testing.assert_allclose(scores, published_scores, rtol=0, atol=1e-5)
    graph = saved_model.SavedModel(directory, classifier.classes, published=True)
    np.testing.assert_allclose(scores, graph.score(encoded), rtol=0, atol=1e-5)
    np.testing.assert_allclose(classifier.embed(encoded[:2]), graph.embed(encoded[:2]), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(classifier.images(encoded[:2]), graph.images(encoded[:2]), rtol=0, atol=1e-5)


def test_the_file_is_the_same_each_time():
    directory = model_directory.published_directory()
    assert published.onnx_model(directory) == published.onnx_model(directory)
