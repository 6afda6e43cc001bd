"""Scores drop images, explains scores, draws plates and serves a classifier, without TFX, Beam or MLflow."""
