"""From the options of a search to the oracle that suggests trials, KerasTuner's or Vertex AI Vizier's."""

from __future__ import annotations

import keras_tuner
from keras_tuner.engine.oracle import Oracle

from components.tuner.options import Tuning, kind_of

OBJECTIVE = keras_tuner.Objective("accuracy", "max")
HYPERBAND_ROUNDS = 27
"""The longest trial in hyperband's units; the shortest has one."""


def search_space(tuning: Tuning) -> keras_tuner.HyperParameters:
    """Returns KerasTuner's description of `tuning.space`; ints stay ints."""
    space = keras_tuner.HyperParameters()
    for name, parameter in tuning.space.items():
        if parameter.choices:
            space.Choice(name, list(parameter.choices))
        elif kind_of(name) is int:
            space.Int(name, int(parameter.min), int(parameter.max), sampling=parameter.sampling)
        else:
            space.Float(name, float(parameter.min), float(parameter.max), sampling=parameter.sampling)
    return space


def oracle(tuning: Tuning, study: str) -> Oracle:
    """Returns the oracle; `study` names the search where it is kept outside, as Vizier does."""
    told = {"objective": OBJECTIVE, "hyperparameters": search_space(tuning), "seed": tuning.seed}
    if tuning.oracle == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=tuning.trials, **told)
    if tuning.oracle == "bayesian":
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=tuning.trials, **told)
    if tuning.oracle == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=HYPERBAND_ROUNDS, **told)
    from components.tuner.vizier import VizierOracle

    return VizierOracle(project=tuning.project, region=tuning.region, study=study, max_trials=tuning.trials, **told)
