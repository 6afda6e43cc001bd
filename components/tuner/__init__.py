"""Hyperparameter search as a TFX step: KerasTuner's oracles over trials that are short trainings of ours."""
