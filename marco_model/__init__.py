"""The MARCO classifier: labels, network, preprocessing, training, export. Imports no TFX, kfp or MLflow."""
