"""One interface over `tf.distribute`: how the steps of a training run are executed (DESIGN.md, decision 3)."""
