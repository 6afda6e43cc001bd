"""Training as a TFX step: builds the network, trains it, exports the model and tells MLflow."""
