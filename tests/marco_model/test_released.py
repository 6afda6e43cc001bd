import importlib.metadata

import numpy as np
import pytest

from marco_model import released
from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.load import load


def test_every_score_of_the_real_images_is_the_published_one(released_directory, encoded, published_scores):
    classifier = load(released_directory)
    assert classifier.classes == CLASSES
    np.testing.assert_allclose(classifier.score(encoded), published_scores, atol=1e-4)


def test_other_shapes_than_the_published_are_refused():
    for model in (inception_v3(variant="paper"), inception_v3(variant="released", num_classes=5)):
        before = np.array(model.get_layer("Conv2d_0a_3x3").kernel)
        with pytest.raises(InputError, match="published checkpoint"):
            released.load_published_weights(model)
        np.testing.assert_array_equal(model.get_layer("Conv2d_0a_3x3").kernel, before)


def test_a_missing_package_names_its_mend(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(InputError, match=r"pip install 'marco-pipeline\[released\]'"):
        released.published_directory()


def test_another_graph_than_the_published_is_refused(monkeypatch, tmp_path):
    class Package:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Package())
    with pytest.raises(InputError, match="missing"):
        released.published_directory()
    (tmp_path / "dls_marco_score_ispyb/savedmodel").mkdir(parents=True)
    (tmp_path / "dls_marco_score_ispyb/savedmodel/saved_model.pb").write_bytes(b"something else")
    with pytest.raises(InputError, match="sha256"):
        released.published_directory()
