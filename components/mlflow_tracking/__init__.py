"""MLflow, where runs are compared: one run a training, to which Trainer, Evaluator and Pusher write in turn.

`tracking` holds the run, `registry` the registered models, `connection` how the store is reached, `provenance` where a
run comes from, `confusion_matrix` the figure.
"""
