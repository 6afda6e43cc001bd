"""The registered model's code, which MLflow stores with it: it needs TensorFlow, NumPy and pandas, not this project."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import tensorflow as tf


class ScoringModel(mlflow.pyfunc.PythonModel):
    """Encoded images in; class, scores, calibrated probabilities and the model's version out."""

    def load_context(self, context: Any) -> None:
        """Opens the SavedModel among the artifacts."""
        directory = Path(context.artifacts["model"])
        self._score = tf.saved_model.load(str(directory)).signatures["serving_default"]
        self._classes = json.loads(Path(context.artifacts["classes"]).read_text())

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Returns one row per `image_bytes` (a JPEG or PNG).

        Columns: `class`; float32, summing to 1, the scores by class and, as `probability_CLASS`, the calibrated
        probabilities; `version`.
        """
        images = [bytes(encoded) for encoded in model_input["image_bytes"]]
        blank = np.zeros([0, len(self._classes)], np.float32)
        outputs: dict[str, Any] = {"class": [], "scores": blank, "probabilities": blank, "version": []}
        if images:
            outputs = {name: value.numpy() for name, value in self._score(image_bytes=tf.constant(images)).items()}
        names, versions = ([text.decode() for text in outputs[name]] for name in ("class", "version"))
        return pd.concat(
            [
                pd.DataFrame({"class": pd.Series(names, dtype=str)}),
                pd.DataFrame(outputs["scores"], columns=self._classes),
                pd.DataFrame(outputs["probabilities"], columns=[f"probability_{name}" for name in self._classes]),
                pd.DataFrame({"version": pd.Series(versions, dtype=str)}),
            ],
            axis=1,
        )


mlflow.models.set_model(ScoringModel())
