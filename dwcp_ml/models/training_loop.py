"""The training loop: mini-batches, Adam, annealed dropout, early stopping, checkpoints.

Faster than ``Model.fit`` with the same results: a part of an epoch is one call of a compiled
function, whose loop over the batches does not return to Python; see ``fused.py`` for the layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats32, Ints
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import Examples, ExampleStream
from dwcp_ml.contract.records import Epoch
from dwcp_ml.models import checkpoint
from dwcp_ml.models.checkpoint import State
from dwcp_ml.models.fused import Dropout, forward
from dwcp_ml.models.protocol import EpochProgress, FitContext
from dwcp_ml.models.settings import LossName, Training

Tensor = Any

Corrected = Callable[[Floats32, Array], Floats32]

PIECES_PER_EPOCH: Final = 20
"""Progress reports per epoch; Ctrl-C takes effect between two of them."""

EVALUATION_BATCH: Final = 1024

# Adam as in Kingma and Ba 2015, with Keras's defaults.
BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-7

CROSS_ENTROPY_SHARE: Final = 0.1
"""Weight of the cross-entropy beside the expected regret: it speeds up the first epochs."""


@dataclass(frozen=True)
class Scaled:
    """Examples as the network reads them: float32 inputs, and targets of shape ``(n, ...)``."""

    inputs: Floats32
    targets: Array

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What a checkpoint is compared by."""
        return self.inputs, self.targets

    def buffers(self, epoch: int) -> Iterator[Scaled]:  # noqa: ARG002
        """Yield the examples of an epoch in parts: all in one."""
        yield self


@dataclass(frozen=True)
class ScaledStream:
    """Examples that do not fit into memory, scaled buffer by buffer; ``count`` in an epoch."""

    stream: ExampleStream
    seed: int
    count: int
    scaled: Callable[[Examples], Scaled]

    def __len__(self) -> int:
        return min(self.count, len(self.stream))

    @property
    def identity(self) -> tuple[Any, ...]:
        """What a checkpoint is compared by."""
        return self.stream.digest, self.count

    def buffers(self, epoch: int) -> Iterator[Scaled]:
        """Yield the examples of an epoch in parts."""
        return map(self.scaled, self.stream.buffers(self.seed, epoch, self.count))


def train(
    network: Any,
    examples: Scaled | ScaledStream,
    validation: Scaled,
    settings: Training,
    context: FitContext,
    identity: Sequence[Any] = (),
    corrected: Corrected = lambda outputs, _targets: outputs,
) -> State:
    """Train a Keras ``Sequential`` and return the last state; its ``best`` are the weights to use.

    Parameters
    ----------
    network
        Defines the layers and the initial weights; it is not changed.
    identity
        Further values that identify this training; the checkpoint of another one is ignored.
    corrected
        Corrects validation outputs as the finished model will, given the targets; epochs are
        compared by the loss of the result.

    Raises ``TrainingFailed`` if the loss is no longer a finite number.
    """
    epochs = context.epochs or settings.epochs
    batch = min(settings.batch_size, len(examples))
    compiled = _CompiledSteps(network.layers, batch, settings, epochs * (len(examples) // batch))
    initial = State.initial(np.asarray(w.value) for w in network.trainable_weights)
    training = checkpoint.fingerprint(
        [context.seed, epochs, settings.model_dump(), *identity],
        *examples.identity,
        *validation.identity,
    )
    directory = context.checkpoint_directory
    state = (checkpoint.read(directory, training) if directory else None) or initial
    eta = _EtaEstimator(epochs, len(state.history))
    for number in range(len(state.history) + 1, epochs + 1):
        if has_stopped(state, settings.patience):
            break
        share = settings.dropout_share(number, epochs)
        loss, moved = _epoch(compiled, examples, state, number, share, context, eta)
        outputs = compiled.outputs(moved.average, validation.inputs)
        validation_loss = compiled.mean_loss(
            corrected(outputs, validation.targets), validation.targets
        )
        if not np.isfinite(loss + validation_loss):
            raise TrainingFailed(
                f"The loss of epoch {number} is not a number; "
                f"lower the learning rate of {settings.learning_rate:g}.",
                code=ErrorCode.NOT_FINITE,
                subject=f"loss of epoch {number}",
            )
        epoch = Epoch(epoch=number, loss=loss, validation_loss=validation_loss, dropout=share)
        state = state.after(epoch, moved)
        eta.validation_loss = validation_loss
        if directory:
            checkpoint.write(directory, state, training)
    return state


def has_stopped(state: State, patience: int) -> bool:
    """Return whether the last ``patience`` epochs, without dropout, did not lower the loss.

    While dropout falls, training continues even if the loss stagnates.
    """
    last = state.history[-patience:]
    best = state.best_epoch
    if best is None or len(last) < patience:
        return False
    return best.epoch < last[0].epoch and not any(epoch.dropout for epoch in last)


def _epoch(
    compiled: _CompiledSteps,
    examples: Scaled | ScaledStream,
    state: State,
    number: int,
    share: float,
    context: FitContext,
    eta: _EtaEstimator,
) -> tuple[float, State]:
    """Return the mean loss of an epoch and the state that its steps lead to."""
    steps = len(examples) // compiled.batch
    piece = -(-steps // PIECES_PER_EPOCH)
    moving = compiled.load(state)
    rng = np.random.default_rng([context.seed, number])
    total, done = 0.0, 0
    for buffer in examples.buffers(number):
        order, seed = order_of_buffer(rng, len(buffer), compiled.batch)
        compiled.hold(buffer)
        for start in range(0, len(order), piece):
            rows = order[start : start + piece]
            place = start * len(compiled.layers)
            moving, loss = compiled.advance(moving, rows, share, (seed, place))
            total, done = total + loss, done + len(rows)
            context.progress(eta.progress(number, min(1.0, done / steps), total / done))
    return total / done, compiled.unload(state, moving)


def order_of_buffer(rng: np.random.Generator, examples: int, batch: int) -> tuple[Ints, int]:
    """Return the batches of a buffer, ``(steps, batch)`` example indices, and its dropout seed.

    Every step has a full batch; the remainder is left out, and differs between epochs.
    """
    steps = examples // batch
    order = rng.permutation(examples)[: steps * batch].reshape(steps, batch)
    return order, int(rng.integers(0, 2**31 - 1))


class _EtaEstimator:
    """Estimates the time left from the epochs that this process has done."""

    def __init__(self, epochs: int, already_done: int) -> None:
        self.epochs = epochs
        self.already_done = already_done
        self.started = time.monotonic()
        self.validation_loss: float | None = None

    def progress(self, epoch: int, fraction: float, loss: float) -> EpochProgress:
        done = epoch - 1 + fraction - self.already_done
        left = self.epochs - (epoch - 1 + fraction)
        eta = (time.monotonic() - self.started) / done * left
        return EpochProgress(epoch, self.epochs, fraction, loss, self.validation_loss, eta)


class _CompiledSteps:
    """The compiled part: many steps in one call.

    Its state is ``(weights, first moments, second moments, average, steps)``: lists of tensors and
    a number.
    """

    def __init__(
        self, layers: Sequence[Any], batch: int, settings: Training, all_steps: int
    ) -> None:
        import tensorflow as tf

        self.layers = list(layers)
        self.batch = batch
        self.settings = settings
        self.all_steps = all_steps
        self.loss = loss_function(settings.loss)
        self._held: tuple[Tensor, Tensor]
        self._advance = tf.function(self._advance_in_graph, autograph=False, reduce_retracing=True)
        self._outputs = tf.function(self._outputs_in_graph, autograph=False, reduce_retracing=True)

    def hold(self, buffer: Scaled) -> None:
        """Let ``advance`` read these examples from now on."""
        import tensorflow as tf

        self._held = tf.constant(buffer.inputs), tf.constant(buffer.targets)

    def load(self, state: State) -> tuple[Any, ...]:
        """Return a state as tensors for ``advance``."""
        import tensorflow as tf

        groups = (state.weights, state.first, state.second, state.average)
        tensors = ([tf.constant(array) for array in group] for group in groups)
        return *tensors, tf.constant(state.steps, tf.float32)

    def unload(self, state: State, moving: Any) -> State:
        """Return ``state`` with the tensors of ``advance``."""
        weights, first, second, average = (tuple(t.numpy() for t in group) for group in moving[:-1])
        return State(weights, first, second, average, int(moving[-1]), state.best, state.history)

    def advance(
        self, moving: Any, rows: Ints, share: float, seed: tuple[int, int]
    ) -> tuple[Any, float]:
        """Take one step for each row of ``rows``, a batch's indices; return the sum of losses."""
        import tensorflow as tf

        arguments = (
            tf.constant(rows, tf.int32),
            tf.constant(share, tf.float32),
            tf.constant(seed, tf.int32),
        )
        moved, loss = self._advance(moving, *arguments, *self._held)
        return moved, float(loss)

    def _advance_in_graph(
        self,
        moving: Any,
        rows: Tensor,
        share: Tensor,
        seed: Tensor,
        inputs: Tensor,
        targets: Tensor,
    ) -> Any:
        import tensorflow as tf

        rows = tf.ensure_shape(rows, (None, self.batch))

        def step(number: Tensor, moving: Any, total: Tensor) -> Any:
            weights, first, second, average, steps = moving
            batch = rows[number]
            dropout = Dropout(share, tf.stack([seed[0], seed[1] + number * len(self.layers)]))
            with tf.GradientTape() as tape:
                tape.watch(weights)
                outputs = forward(self.layers, weights, tf.gather(inputs, batch), dropout)
                loss = tf.reduce_mean(self.loss(outputs, tf.gather(targets, batch)))
            gradients = tape.gradient(loss, weights)
            rate = learning_rate(self.settings, steps, self.all_steps)
            weights, first, second, steps = adam(weights, gradients, first, second, steps + 1, rate)
            average = averaged(average, weights, self.settings.average, steps)
            moved = weights, first, second, average, steps
            return number + 1, moved, total + loss

        _, moving, total = tf.while_loop(
            lambda number, *_: number < tf.shape(rows)[0],
            step,
            (0, moving, 0.0),
            parallel_iterations=1,
        )
        return moving, total

    def outputs(self, weights: Sequence[Floats32], inputs: Floats32) -> Floats32:
        """Return the outputs of the network without dropout."""
        import tensorflow as tf

        constants = [tf.constant(array) for array in weights]
        parts = [
            self._outputs(constants, inputs[start : start + EVALUATION_BATCH]).numpy()
            for start in range(0, len(inputs), EVALUATION_BATCH)
        ]
        return np.concatenate(parts)

    def _outputs_in_graph(self, weights: Any, inputs: Tensor) -> Tensor:
        return forward(self.layers, weights, inputs, None)

    def mean_loss(self, outputs: Floats32, targets: Array) -> float:
        """Return the mean loss of outputs."""
        import tensorflow as tf

        return float(tf.reduce_mean(self.loss(tf.constant(outputs), tf.constant(targets))))


def averaged(
    average: Sequence[Tensor], weights: Sequence[Tensor], momentum: float, steps: Tensor
) -> list[Tensor]:
    """Return the moving average of the weights after the ``steps``-th step, counted from 1.

    Early on the momentum is at most (1 + steps) / (10 + steps), as in TensorFlow's moving averages:
    otherwise a short training would return little more than its initial weights.
    """
    import tensorflow as tf

    if momentum == 0.0:
        return list(weights)
    share = 1.0 - tf.minimum(momentum, (1.0 + steps) / (10.0 + steps))
    return [a + share * (w - a) for a, w in zip(average, weights, strict=True)]


def learning_rate(settings: Training, steps: Tensor, all_steps: int) -> Tensor | float:
    """Return the learning rate after ``steps`` of ``all_steps`` batches."""
    import tensorflow as tf

    if settings.schedule == "constant":
        return settings.learning_rate
    angle = np.pi * tf.minimum(steps / all_steps, 1.0)
    return settings.learning_rate * 0.5 * (1.0 + tf.cos(angle))


def adam(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    steps: Tensor,
    learning_rate: Tensor | float,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """Return weights and moments after one step, the ``steps``-th, counted from 1."""
    import tensorflow as tf

    rate = learning_rate * tf.sqrt(1 - BETA_2**steps) / (1 - BETA_1**steps)
    first = [m + (g - m) * (1 - BETA_1) for m, g in zip(first, gradients, strict=True)]
    second = [v + (g * g - v) * (1 - BETA_2) for v, g in zip(second, gradients, strict=True)]
    triples = zip(weights, first, second, strict=True)
    weights = [w - rate * m / (tf.sqrt(v) + EPSILON) for w, m, v in triples]
    return weights, first, second, steps


def loss_function(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of (outputs, targets) that gives the loss of each example, ``(batch,)``.

    ``expected_regret`` is the expected cost of a class that is drawn with the probabilities of the
    outputs (Smith and Eisner, "Minimum risk annealing for training log-linear models", COLING/ACL
    2006), plus a tenth of the cross-entropy. Its targets are the cost of each class, ``(batch,
    classes)``, 0 for the best.
    """
    import tensorflow as tf

    def over_example(errors: Tensor) -> Tensor:
        return tf.reduce_mean(errors, axis=list(range(1, errors.shape.rank)))

    def huber(errors: Tensor) -> Tensor:
        size = tf.abs(errors)
        return tf.where(size < 1.0, 0.5 * size * size, size - 0.5)

    def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
        chosen = tf.gather(outputs, targets, axis=1, batch_dims=1)
        return -tf.math.log(tf.maximum(chosen, EPSILON))

    def expected_regret(outputs: Tensor, costs: Tensor) -> Tensor:
        best = tf.argmin(costs, axis=1, output_type=tf.int32)
        regret = tf.reduce_sum(outputs * costs, axis=1)
        return regret + CROSS_ENTROPY_SHARE * cross_entropy(outputs, best)

    return {
        "mse": lambda outputs, targets: over_example(tf.square(outputs - targets)),
        "mae": lambda outputs, targets: over_example(tf.abs(outputs - targets)),
        "huber": lambda outputs, targets: over_example(huber(outputs - targets)),
        "sparse_categorical_crossentropy": cross_entropy,
        "expected_regret": expected_regret,
    }[name]
