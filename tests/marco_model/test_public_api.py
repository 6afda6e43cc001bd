import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import marco_model
from marco_model import errors, labels, load, model_directory


def test_the_public_names_are_those_of_the_modules():
    assert set(marco_model.__all__) <= set(dir(marco_model))
    assert marco_model.CLASSES is labels.CLASSES
    assert marco_model.InputError is errors.InputError
    assert marco_model.open_classifier is load.open_classifier
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = marco_model.missing
    assert marco_model.__version__[0].isdigit()


def test_a_tree_that_is_not_installed_has_a_version(monkeypatch):
    def absent(name):
        raise marco_model.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    assert marco_model.__version__ == "0+unknown"


def test_files_are_scored_as_their_bytes_are(released_directory, real_images, encoded):
    classifier = marco_model.open_classifier(released_directory)
    assert isinstance(classifier, marco_model.LoadedClassifier)
    scores = classifier.score_files(list(real_images.values()), batch_size=4)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, classifier.score(encoded), atol=1e-6)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert classifier.score_files([]).shape == (0, 4)


def test_files_are_turned_and_deep_samples_kept_as_when_predicting(released_classifier, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
    grey[0, 0], grey[:40] = 255, grey[:40] // 3
    Image.fromarray(grey).save(tmp_path / "plain.png")
    Image.fromarray(grey.astype(np.uint16) << 4 | 15).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(grey)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(grey).save(tmp_path / "plain.bmp")
    scores = released_classifier.score_files([tmp_path / "plain.png", *sorted(tmp_path.iterdir())])
    np.testing.assert_allclose(scores - scores[0], 0, atol=1e-6)


def test_objects_are_scored_too(released_classifier, encoded, gcs):
    gcs.bucket("drops").blob("plate/a.jpeg").upload_from_string(encoded[0])
    classifier = released_classifier
    scores = classifier.score_files(["gs://drops/plate/a.jpeg"])
    np.testing.assert_allclose(scores, classifier.score(encoded[:1]), atol=1e-6)
    with pytest.raises(marco_model.InputError, match=r"gs://drops/plate/b\.jpeg does not exist"):
        classifier.score_files(["gs://drops/plate/b.jpeg"])


def test_a_file_that_cannot_be_scored_is_named(released_classifier, real_images, tmp_path):
    classifier = released_classifier
    (tmp_path / "text.jpeg").write_text("not an image")
    first = next(iter(real_images.values()))
    with pytest.raises(marco_model.InputError, match=r"text\.jpeg: not a JPEG, PNG, TIFF or BMP image"):
        classifier.score_files([first, tmp_path / "text.jpeg"])
    with pytest.raises(marco_model.InputError, match=r"none\.jpeg cannot be read .*No such file"):
        classifier.score_files([str(tmp_path / "none.jpeg")])


def test_the_published_classifier_opens_without_a_path(encoded, published_scores):
    classifier = marco_model.open_published_classifier()
    assert (classifier.name, classifier.classes) == (model_directory.PUBLISHED_NAME, marco_model.CLASSES)
    np.testing.assert_allclose(classifier.score(encoded[:1]), published_scores[:1], atol=1e-5)


@pytest.mark.parametrize(
    "use",
    [
        "marco_model",
        "marco_model; marco_model.CLASSES, marco_model.InputError, marco_model.__version__",
        "marco_model.model_directory, marco_model.network, marco_model.recipe, marco_model.store",
    ],
)
def test_importing_the_configuration_imports_nothing_heavy(use):
    heavy = {"tensorflow", "keras", "numpy", "scipy", "google.cloud.storage", "apache_beam"}
    code = f"import sys, {use}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
