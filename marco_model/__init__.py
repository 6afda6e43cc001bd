"""The MARCO classifier: labels, network, preprocessing, augmentation, training and export. Imports no TFX, kfp or MLflow."""
