"""The state of a training run and its one step: weights, optimizer slots, running average and the best weights so far.

`RMSProp` is TensorFlow 1's optimizer, `training_loss` the loss of TF-Slim's script, `TrainingState` joins them. The
Keras model is used as a pure function (`stateless_call`) and the variables are ours, so that the same state is made,
and the same step runs, under any `tf.distribute` strategy.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marco_model import augmentation, errors, layers, preprocessing, recipe as recipes, training_input

Update = Callable[..., None]
"""Calls a function with a variable, where it is, and with tensors and further variables that lie beside it."""


def on_all_devices(strategy: tf.distribute.Strategy) -> Update:
    """Returns how `merge_call` updates a variable: the copy of each replica, or the one on a parameter server."""
    return lambda function, variable, *arguments: strategy.extended.update(variable, function, args=arguments)


def _own(replica: tf.distribute.ReplicaContext, variable: tf.Variable) -> tf.Variable:
    """Returns the synchronous replica's own copy of a variable."""
    copies = replica.strategy.experimental_local_results(variable)
    return copies[_number(replica) % len(copies)]


def _number(replica: tf.distribute.ReplicaContext) -> int:
    return int(tf.get_static_value(replica.replica_id_in_sync_group))


class RMSProp:
    """RMSProp as TensorFlow 1 had it: slots for a list of float32 variables, and the fused kernel that updates them.

    ms ← ρ ms + (1 − ρ) g²;  mom ← momentum · mom + lr · g / √(ms + ε);  v ← v − mom

    Make it under the scope of the strategy that the variables were made under; each slot lies beside its variable.
    """

    def __init__(self, variables: list[tf.Variable], *, rho: float, momentum: float, epsilon: float) -> None:
        self._variables = variables
        self._constants = {"rho": rho, "momentum": momentum, "epsilon": epsilon}
        self.mean_squares = _variables_beside(variables, tf.ones_like)
        self.momenta = _variables_beside(variables, tf.zeros_like)

    def apply(self, update: Update, gradients: list[tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Takes one step through `update`, such as that of `on_all_devices` in a `merge_call`.

        `gradients` are in the order of the variables and the same on every replica; `learning_rate` is a float32
        scalar.
        """
        for arguments in zip(self._variables, self.mean_squares, self.momenta, gradients, strict=True):
            update(self._update, *arguments, learning_rate)

    def _update(self, variable: tf.Variable, *slots_and_tensors: Any) -> None:
        mean_square, momentum, gradient, learning_rate = slots_and_tensors
        handles = {"var": variable.handle, "ms": mean_square.handle, "mom": momentum.handle}
        tf.raw_ops.ResourceApplyRMSProp(**handles, lr=learning_rate, grad=gradient, **self._constants)


def reverse_gradient(features: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Returns `features` as they are; their gradient is multiplied by −`strength`, a float32 scalar."""

    @tf.custom_gradient
    def reverse(values: tf.Tensor) -> Any:
        return tf.identity(values), lambda gradient: -strength * gradient

    return reverse(features)


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0, *, all_known: bool = False
) -> tf.Tensor:
    """Returns the cross-entropy of float32 [batch, classes] logits with int64 [batch] labels, of which −1 are unknown.

    Smoothing s over k classes: 1 − s + s/k for the label, s/k for the others. An unknown label adds nothing, and the
    sum is divided by the whole batch: each label weighs the same however many are known, and the mean over the replicas
    of a batch is that of the batch. `all_known`: no label is unknown.
    """
    classes = logits.shape[-1]
    target = tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / classes
    losses = tf.nn.softmax_cross_entropy_with_logits(target, tf.cast(logits, tf.float32))
    return tf.reduce_mean(losses if all_known else tf.where(labels >= 0, losses, 0.0))


def training_loss(outputs: Any, labels: tf.Tensor, kernels: list[tf.Tensor], recipe: recipes.Recipe) -> tf.Tensor:
    """Returns the scalar loss of the network's outputs: logits, or a dict with `logits` and further heads' logits.

    `labels`: int64 [batch], or [batch, 3] as `training_input` makes them for the heads of raw labels and of sources.
    `tf.nn.l2_loss` halves the sum of squares, as TF-Slim's `l2_regularizer` does.
    """
    by_head, classes = layers.by_name(outputs), training_input.class_of(labels, 1)
    smoothing, all_known = recipe.label_smoothing, not recipe.unlabelled
    loss = cross_entropy(by_head["logits"], classes, smoothing, all_known=all_known)
    if "auxiliary_logits" in by_head:
        auxiliary = cross_entropy(by_head["auxiliary_logits"], classes, smoothing, all_known=all_known)
        loss += recipe.auxiliary_weight * auxiliary
    if recipe.adversarial_weight:
        loss += recipe.adversarial_weight * cross_entropy(by_head[layers.SOURCE_LOGITS], labels[:, 1])
    if recipe.raw_weight:
        loss += recipe.raw_weight * cross_entropy(by_head[layers.RAW_LOGITS], labels[:, 2], smoothing)
    return loss + recipe.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])


def share_right(outputs: Any, labels: tf.Tensor, *, all_known: bool) -> tf.Tensor:
    """Returns the share of the batch whose label is named, a float32 scalar; unless `all_known`, of known labels."""
    classes = training_input.class_of(labels, 1)
    right = tf.cast(tf.equal(tf.argmax(layers.by_name(outputs)["logits"], axis=-1), classes), tf.float32)
    if all_known:
        return tf.reduce_mean(right)
    return tf.math.divide_no_nan(tf.reduce_sum(right), tf.reduce_sum(tf.cast(classes >= 0, tf.float32)))


class TrainingState:
    """The state of a training run of `model`, a Keras model from float32 images in [-1, 1] to logits.

    `source_head`: for adversarial training, from the model's output `features` to the logits of sources
    (`layers.source_head`).

    Make it under the scope of a strategy. Averages run over all the model's variables, moving statistics included, as
    TF-Slim's do. `xla` compiles the whole step of a synchronous replica, but for the draws and the exchange of
    gradients among several; of an asynchronous worker, whose variables are elsewhere, forward and backward pass.
    """

    def __init__(
        self, model: keras.Model, recipe: recipes.Recipe, *, xla: bool = False, source_head: keras.Model | None = None
    ) -> None:
        self._model = model
        self._source_head = source_head
        self._recipe = recipe
        self._of_model = len(model.trainable_variables)
        trainable = model.trainable_variables + (source_head.trainable_variables if source_head else [])
        self._variables = trainable + model.non_trainable_variables
        self._paths = [variable.path for variable in self._variables]
        self.trained = [tf.Variable(v.value) for v in trainable]
        self.statistics = [tf.Variable(v.value, trainable=False) for v in model.non_trainable_variables]
        self.optimizer = RMSProp(self.trained, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon)
        self.averages = _variables_beside(self.trained + self.statistics)
        self.best = _variables_beside(self.trained + self.statistics)
        momenta = {
            statistic.path: layer.momentum
            for layer in layers.batch_norms(model)
            for statistic in (layer.moving_mean, layer.moving_variance)
        }
        # The share of each moving statistic that a step keeps.
        self._kept = [momenta.get(variable.path, 1.0) for variable in model.non_trainable_variables]
        self._kernels = [index for index, v in enumerate(trainable) if v.path.endswith("kernel")]
        self._xla = xla
        self._asynchronous = isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy)
        # On a GPU all of the step is compiled, or nothing. Asynchronous workers may have GPUs that this process lacks.
        on_gpu = self._asynchronous or bool(tf.config.list_logical_devices("GPU"))
        self._distort = augmentation.distort if on_gpu else augmentation.compiled_distort()
        self._gradients = tf.function(self._forward_and_backward, jit_compile=True, autograph=False) if xla else None
        self._programs: dict[tuple[str, int], Callable[..., Any]] = {}

    def step(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        seed: tf.Tensor,
        learning_rate: tf.Tensor,
        average_decay: tf.Tensor,
        reversal: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step in the replica context of `Strategy.run`.

        Args:
            images: this replica's part of the batch, uint8 [batch / replicas, size, size, 3].
            labels: int64 [batch / replicas], or [batch / replicas, 3] with further targets.
            seed: int64 [2]; decides the batch's distortions, whatever the number of replicas.
            learning_rate: float32 scalar.
            average_decay: float32 scalar in [0, 1).
            reversal: float32 scalar, of adversarial training (`recipe.reversal_at`).

        Returns:
            The batch's loss and its accuracy on the distorted images, float32 scalars.
        """
        replica = tf.distribute.get_replica_context()
        draws = self._draws(tf.shape(images)[0], seed, replica)
        if self._xla and not self._asynchronous and replica.num_replicas_in_sync == 1:
            whole_step = self._compiled(self._whole_step, replica)
            return whole_step(images, draws, labels, learning_rate, average_decay, reversal)
        compute = self._gradients or self._forward_and_backward
        outcome = compute(
            [tf.convert_to_tensor(variable) for variable in self.trained],
            [tf.convert_to_tensor(variable) for variable in self.statistics],
            images,
            draws,
            labels,
            reversal,
        )
        if replica.num_replicas_in_sync > 1:
            outcome = replica.all_reduce(tf.distribute.ReduceOp.MEAN, outcome)
        gradients, added, loss, accuracy = outcome
        if self._xla and not self._asynchronous:
            self._compiled(self._update_own, replica)(gradients, added, learning_rate, average_decay)
        else:
            replica.merge_call(self._update_all, args=(gradients, added, learning_rate, average_decay))
        return loss, accuracy

    def _compiled(self, part: Callable[..., Any], replica: tf.distribute.ReplicaContext) -> Callable[..., Any]:
        """Returns a part of the step as a program of this replica, which has the replica's own variables in it."""
        key = part.__name__, _number(replica)
        if key not in self._programs:
            function = functools.partial(part, replica)
            self._programs[key] = tf.function(function, jit_compile=True, autograph=False)
        return self._programs[key]

    def _whole_step(
        self,
        replica: tf.distribute.ReplicaContext,
        images: tf.Tensor,
        draws: augmentation.Draws | None,
        labels: tf.Tensor,
        learning_rate: tf.Tensor,
        average_decay: tf.Tensor,
        reversal: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        trained, statistics = (
            [tf.convert_to_tensor(_own(replica, variable)) for variable in variables]
            for variables in (self.trained, self.statistics)
        )
        arguments = trained, statistics, images, draws, labels, reversal
        gradients, added, loss, accuracy = self._forward_and_backward(*arguments)
        self._update_own(replica, gradients, added, learning_rate, average_decay)
        return loss, accuracy

    def _draws(
        self, share: tf.Tensor, seed: tf.Tensor, replica: tf.distribute.ReplicaContext
    ) -> augmentation.Draws | None:
        """Returns this replica's draws out of those for the whole batch, which don't depend on the replicas."""
        if not self._recipe.augment:
            return None
        draws = augmentation.draw(seed, share * replica.num_replicas_in_sync, self._recipe.colour_distortion)
        first = replica.replica_id_in_sync_group * share
        return augmentation.Draws(*(part[first : first + share] for part in draws))

    def _forward_and_backward(
        self,
        trained: list[tf.Tensor],
        statistics: list[tf.Tensor],
        images: tf.Tensor,
        draws: augmentation.Draws | None,
        labels: tf.Tensor,
        reversal: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns gradients, additions to the moving statistics, loss and accuracy; pure, so that XLA compiles it."""
        inputs = self._distort(images, draws) if draws else preprocessing.to_network_range(images)
        with tf.GradientTape() as tape:
            tape.watch(trained)
            own, of_head = trained[: self._of_model], trained[self._of_model :]
            outputs, moved = self._model.stateless_call(own, statistics, inputs, training=True)
            if self._source_head:
                features = reverse_gradient(outputs[layers.FEATURES], reversal)
                outputs = {**outputs, layers.SOURCE_LOGITS: self._source_head.stateless_call(of_head, [], features)[0]}
            loss = training_loss(outputs, labels, [trained[index] for index in self._kernels], self._recipe)
        added = [new - kept * old for new, kept, old in zip(moved, self._kept, statistics, strict=True)]
        accuracy = share_right(outputs, labels, all_known=not self._recipe.unlabelled)
        return tape.gradient(loss, trained), added, loss, accuracy

    def _update_all(self, strategy: tf.distribute.Strategy, *arguments: Any) -> None:
        self._update(on_all_devices(strategy), *arguments)

    def _update_own(self, replica: tf.distribute.ReplicaContext, *arguments: Any) -> None:
        def update(function: Callable[..., None], *operands: tf.Variable | tf.Tensor | float) -> None:
            function(*(_own(replica, each) if isinstance(each, tf.Variable) else each for each in operands))

        self._update(update, *arguments)

    def _update(
        self,
        update: Update,
        gradients: list[tf.Tensor],
        added: list[tf.Tensor],
        learning_rate: tf.Tensor,
        average_decay: tf.Tensor,
    ) -> None:
        self.optimizer.apply(update, gradients, learning_rate)
        # A share of the current value is kept: asynchronous workers that added to stale values, or replaced them, would
        # undo each other's steps and could make a variance negative.
        for variable, kept, addend in zip(self.statistics, self._kept, added, strict=True):
            update(_move, variable, kept, addend)
        for average, variable in zip(self.averages, self.trained + self.statistics, strict=True):
            update(_approach, average, variable, average_decay)

    def average_values(self) -> list[tf.Tensor]:
        """Returns the running average, wherever its variables are, as tensors where this runs."""
        return [tf.convert_to_tensor(variable) for variable in self.averages]

    def evaluation_sums(self, values: list[tf.Tensor], images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns float32 [3] for `average_values`: summed cross-entropy, correct answers, examples.

        `images`: float32 [batch, size, size, 3] in [-1, 1]. `labels`: int64 [batch]; −1 marks padding.
        """
        outputs, _ = self._model.stateless_call(values[: self._of_model], values[len(self.trained) :], images)
        logits = tf.cast(layers.by_name(outputs)["logits"], tf.float32)
        real = tf.cast(labels >= 0, tf.float32)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        right = tf.cast(tf.equal(tf.argmax(logits, axis=-1), labels), tf.float32)
        return tf.stack([tf.reduce_sum(entropies * real), tf.reduce_sum(right * real), tf.reduce_sum(real)])

    def keep_best(self) -> None:
        """Keeps the running average as the best weights so far."""
        for best, average in zip(self.best, self.averages, strict=True):
            best.assign(average)

    def values(self) -> dict[str, np.ndarray]:
        """Returns every number of the state by name, such as `momentum/Mixed_5b-Branch_0-Conv2d_0a_1x1/kernel`."""
        return {name: variable.numpy() for name, variable in self._by_name().items()}

    def restore(self, values: Mapping[str, np.ndarray]) -> None:
        """Assigns what `values` returned, under this or another strategy.

        Raises `InputError` if the values are those of another network.
        """
        variables = self._by_name()
        for name, variable in variables.items():
            shape = values[name].shape if name in values else None
            if shape != tuple(variable.shape):
                raise errors.InputError(
                    f"the checkpoint has {name} of shape {shape}, the network {tuple(variable.shape)}; "
                    "it was made by another network: give another folder"
                )
        for name, variable in variables.items():
            variable.assign(values[name])

    def _by_name(self) -> dict[str, tf.Variable]:
        groups = {
            "weight": self.trained + self.statistics,
            "mean_square": self.optimizer.mean_squares,
            "momentum": self.optimizer.momenta,
            "average": self.averages,
            "best": self.best,
        }
        return {
            f"{group}/{path}": variable
            for group, variables in groups.items()
            # Only trained variables, which come first, have slots.
            for path, variable in zip(self._paths, variables, strict=False)
        }

    def put_best_into_model(self) -> None:
        """Gives the model the best weights, for export."""
        for variable, value in zip(self._variables, self.best, strict=True):
            variable.assign(value.numpy())


def _variables_beside(
    variables: list[tf.Variable], initial: Callable[[tf.Variable], tf.Tensor] = lambda variable: variable
) -> list[tf.Variable]:
    """Returns variables on the devices of `variables`, which start with the same values or with those of `initial`."""
    extended = tf.distribute.get_strategy().extended
    beside = []
    for variable in variables:
        with extended.colocate_vars_with(variable):
            beside.append(tf.Variable(initial(variable), trainable=False))
    return beside


def _move(statistic: tf.Variable, kept: float, addend: tf.Tensor) -> None:
    statistic.assign(kept * statistic + addend)


def _approach(average: tf.Variable, variable: tf.Variable, decay: tf.Tensor) -> None:
    # One reading, not a delta: asynchronous workers may read at the same time, and two deltas overshoot.
    value = tf.convert_to_tensor(average)
    average.assign(value - (1.0 - decay) * (value - variable))
