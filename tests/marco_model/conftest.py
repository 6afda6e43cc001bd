import numpy as np
import pytest

SCORES = {  # by the published graph itself, TensorFlow 2.16.2 on a CPU: Clear, Crystals, Other, Precipitate
    "clear_220.jpeg": (0.9133686, 0.0247527, 0.0256348, 0.0362439),
    "clear_236.jpeg": (0.8747374, 0.0492821, 0.0432823, 0.0326982),
    "crystals_10.jpeg": (0.0260091, 0.9156436, 0.0293832, 0.0289640),
    "crystals_6488.jpeg": (0.0213155, 0.9211900, 0.0303601, 0.0271345),
    "other_1254.jpeg": (0.0214522, 0.0260105, 0.9198745, 0.0326627),
    "precipitate_216.jpeg": (0.4092869, 0.4465934, 0.0921923, 0.0519273),
}


@pytest.fixture(scope="session")
def encoded(real_images):
    return [path.read_bytes() for path in real_images.values()]


@pytest.fixture(scope="session")
def published_scores(real_images):
    return np.array([SCORES[name] for name in real_images])


@pytest.fixture(scope="session")
def published():
    """The published SavedModel itself."""
    import tensorflow as tf

    from marco_model.model_directory import published_directory

    return tf.saved_model.load(str(published_directory()))


@pytest.fixture(scope="session")
def released_model():
    """The published network in this project's implementation, with its auxiliary head."""
    from marco_model.weights import published_network

    return published_network(auxiliary=True)


@pytest.fixture(scope="session")
def released_directory(request, made_once):
    """`released_model` exported, with a temperature of 0.5."""

    def make(directory):
        from marco_model.classifier import export
        from marco_model.labels import CLASSES

        options = {"classes": CLASSES, "input_size": 599, "temperature": 0.5, "metadata": {"name": "released"}}
        export(request.getfixturevalue("released_model"), directory, **options)

    return made_once("released", make)


@pytest.fixture(scope="session")
def published_classifier():
    """The published classifier, opened."""
    from marco_model.load import open_published_classifier

    return open_published_classifier()


@pytest.fixture(scope="session")
def released_classifier(released_directory):
    """The classifier of `released_directory`, opened."""
    from marco_model.load import open_classifier

    return open_classifier(released_directory)


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """The records of the small problem: 60 images to train on and 20 to evaluate."""
    from marco_model.example_files import read_index
    from tests.marco_model.small_problem import write_examples

    folder = tmp_path_factory.mktemp("examples")
    return {
        "train_records": read_index(write_examples(folder / "train.tfrecord", 60, 0)),
        "validation_records": read_index(write_examples(folder / "eval.tfrecord", 20, 1)),
    }
