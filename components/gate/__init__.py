"""The gate: a model replaces the champion only where, on the same images, it is shown to be better (docs/gate.md).

`paired` is the statistics, `rules` what is configured, `decide` the decision, `champion` the model to beat.
"""
