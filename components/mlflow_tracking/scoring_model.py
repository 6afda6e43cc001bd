"""The registered model's code, which MLflow stores with it: it needs TensorFlow, NumPy and pandas, not this project."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import tensorflow as tf


class ScoringModel(mlflow.pyfunc.PythonModel):
    """Encoded images in, a column of scores for each class out."""

    def load_context(self, context):
        """Opens the SavedModel among the artifacts."""
        directory = Path(context.artifacts["model"])
        self._score = tf.saved_model.load(str(directory)).signatures["serving_default"]
        self._classes = json.loads(Path(context.artifacts["classes"]).read_text())

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Returns float32 scores, one row for each `image_bytes` (a JPEG or PNG), one column a class."""
        images = [bytes(encoded) for encoded in model_input["image_bytes"]]
        if not images:
            return pd.DataFrame(np.zeros([0, len(self._classes)], np.float32), columns=self._classes)
        return pd.DataFrame(self._score(image_bytes=tf.constant(images))["scores"].numpy(), columns=self._classes)


mlflow.models.set_model(ScoringModel())
