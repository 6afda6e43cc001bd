"""The MARCO classifier: labels, network, preprocessing, training, export. Imports no TFX, kfp or MLflow.

The names below are the public API; what they need is imported when they are first used, so that `import marco_model`
is quick and works without TensorFlow.

    import marco_model

    classifier = marco_model.open_published_classifier()        # or open_classifier("models/7")
    scores = classifier.score_files(["a.jpeg", "b.png"])        # float32 [2, 4], each row summing to 1
    names = [marco_model.CLASSES[row.argmax()] for row in scores]
"""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marco_model.errors import InputError
    from marco_model.labels import CLASSES
    from marco_model.load import LoadedClassifier, open_classifier, open_published_classifier

    __version__: str

__all__ = ["CLASSES", "InputError", "LoadedClassifier", "__version__", "open_classifier", "open_published_classifier"]

_MODULES = {
    "CLASSES": "labels",
    "InputError": "errors",
    "LoadedClassifier": "load",
    "open_classifier": "load",
    "open_published_classifier": "load",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return importlib.metadata.version("marco-pipeline")
        except importlib.metadata.PackageNotFoundError:  # A source tree that was not installed.
            return "0+unknown"
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
