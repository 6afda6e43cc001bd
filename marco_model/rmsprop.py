"""TensorFlow 1's RMSProp, the paper's optimizer: mean square from ones, epsilon inside the root.

Keras's own starts the mean square at zeros, which makes the first steps of a run with epsilon 0.1 very different.
"""

from __future__ import annotations

import tensorflow as tf


class RMSProp:
    """Slots for a list of float32 variables, and the fused kernel that updates a variable with them.

    ms ← ρ ms + (1 − ρ) g²;  mom ← momentum · mom + lr · g / √(ms + ε);  v ← v − mom

    Made under the scope of the strategy that the variables were made under; each slot lies beside its variable.
    """

    def __init__(self, variables: list[tf.Variable], *, rho: float, momentum: float, epsilon: float) -> None:
        self._variables = variables
        self._constants = {"rho": rho, "momentum": momentum, "epsilon": epsilon}
        self.mean_squares, self.momenta = [], []
        extended = tf.distribute.get_strategy().extended
        for variable in variables:
            with extended.colocate_vars_with(variable):
                self.mean_squares.append(tf.Variable(tf.ones_like(variable), trainable=False))
                self.momenta.append(tf.Variable(tf.zeros_like(variable), trainable=False))

    def apply(self, strategy: tf.distribute.Strategy, gradients: list[tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Takes one step; called through `merge_call`.

        `gradients` come in the order of the variables and are the same on every replica; `learning_rate` is a float32
        scalar.
        """
        slots = zip(self._variables, self.mean_squares, self.momenta, gradients, strict=True)
        for variable, mean_square, momentum, gradient in slots:
            strategy.extended.update(variable, self._update, args=(mean_square, momentum, gradient, learning_rate))

    def _update(
        self,
        variable: tf.Variable,
        mean_square: tf.Variable,
        momentum: tf.Variable,
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> None:
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=mean_square.handle,
            mom=momentum.handle,
            lr=learning_rate,
            grad=gradient,
            **self._constants,
        )
