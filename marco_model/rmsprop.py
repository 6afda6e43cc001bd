"""TensorFlow 1's RMSProp, the paper's optimizer: mean square from ones, epsilon inside the root.

Keras's own starts the mean square at zeros, which makes the first steps of a run with epsilon 0.1 very different.
"""

from __future__ import annotations

import tensorflow as tf


class RMSProp(tf.Module):
    """Slots for a list of float32 variables, and the fused kernel that updates a variable with them.

    ms ← ρ ms + (1 − ρ) g²;  mom ← momentum · mom + lr · g / √(ms + ε);  v ← v − mom
    """

    def __init__(self, variables: list[tf.Variable], *, rho: float, momentum: float, epsilon: float) -> None:
        super().__init__()
        self.mean_squares = [tf.Variable(tf.ones_like(variable), trainable=False) for variable in variables]
        self.momenta = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]
        self._variables = variables
        self._constants = {"rho": rho, "momentum": momentum, "epsilon": epsilon}

    def apply(self, gradients: list[tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Takes one step; `gradients` in the order of the variables, `learning_rate` a float32 scalar."""
        slots = zip(self._variables, self.mean_squares, self.momenta, gradients, strict=True)
        for variable, mean_square, momentum, gradient in slots:
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle,
                ms=mean_square.handle,
                mom=momentum.handle,
                lr=learning_rate,
                grad=gradient,
                **self._constants,
            )
