"""The layers of the networks as the training loop computes them.

Keras runs an LSTM as a loop in which each time step pays for a dozen small operations. Here one
fused operation of TensorFlow does all steps. Weights, results and gradients are those of
the Keras layers (a test compares them).

Between layers a sequence is time-major, ``(steps, batch, features)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Tensor = Any
Layer = Any


class Dropout(NamedTuple):
    """The share of each layer's dropout rate that is used, and the seed of its masks.

    ``share`` is a scalar tensor, so that annealing builds no new graph; ``seed`` are two int32.
    """

    share: Tensor
    seed: Tensor

    def mask(self, rate: float, place: int, shape: tuple[int, ...]) -> Tensor:
        """Return what to multiply with: 0 with the layer's rate, else 1 / (1 - rate)."""
        import tensorflow as tf

        rate_now = rate * self.share
        draws = tf.random.stateless_uniform(shape, tf.stack([self.seed[0], self.seed[1] + place]))
        return tf.cast(draws >= rate_now, tf.float32) / (1.0 - rate_now)


def forward(
    layers: Sequence[Layer], weights: Sequence[Tensor], inputs: Tensor, dropout: Dropout | None
) -> Tensor:
    """Return the output of a ``Sequential`` of LSTM, Dense, Dropout, RepeatVector, TimeDistributed.

    Parameters
    ----------
    weights
        Of all layers, in Keras's order.
    inputs : float32 of shape (batch, features) or (batch, steps, features)
        All dimensions are known, except the batch without dropout.
    dropout
        ``None`` outside training.

    Raises ``TypeError`` if a layer is of another kind.
    """
    import tensorflow as tf

    sequence = inputs.shape.rank == 3
    x = tf.transpose(inputs, (1, 0, 2)) if sequence else inputs
    rest = iter(weights)
    for place, layer in enumerate(layers):
        x = _apply(layer, rest, x, dropout, place)
    return tf.transpose(x, (1, 0, 2)) if x.shape.rank == 3 else x


def _apply(
    layer: Layer, weights: Iterator[Tensor], x: Tensor, dropout: Dropout | None, place: int
) -> Tensor:
    import tensorflow as tf
    from keras import layers as kinds

    if isinstance(layer, kinds.LSTM):
        if dropout is not None and layer.dropout:
            x *= dropout.mask(layer.dropout, place, (x.shape[1], x.shape[2]))
        outputs = lstm(x, next(weights), next(weights), next(weights))
        return outputs if layer.return_sequences else outputs[-1]
    if isinstance(layer, kinds.Dropout):
        return x if dropout is None else x * dropout.mask(layer.rate, place, tuple(x.shape))
    if isinstance(layer, kinds.RepeatVector):
        return tf.repeat(x[tf.newaxis], layer.n, axis=0)
    if isinstance(layer, kinds.TimeDistributed):
        layer = layer.layer
    if isinstance(layer, kinds.Dense):
        return layer.activation(tf.tensordot(x, next(weights), 1) + next(weights))
    raise TypeError(f"the training loop does not know the layer {type(layer).__name__}")


def lstm(x: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
    """Return the hidden state after each step of an LSTM that starts from zeros.

    ``x`` is float32 (steps, batch, features), the result (steps, batch, units); ``kernel``,
    ``recurrent`` and ``bias`` are (features, 4 units), (units, 4 units) and (4 units,), with the
    gates in Keras's order: input, forget, cell, output.
    """
    import tensorflow as tf

    units = recurrent.shape[0]
    zeros = tf.zeros((tf.shape(x)[1], units))
    no_peephole = tf.zeros(units)
    # BlockLSTM, not BlockLSTMV2: that one has Keras's order of gates, but wrong gradients.
    fused = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.constant(x.shape[0], tf.int64),
        x=x,
        cs_prev=zeros,
        h_prev=zeros,
        w=_in_block_order(tf.concat([kernel, recurrent], axis=0)),
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=_in_block_order(bias),
        forget_bias=0.0,
        cell_clip=-1.0,
    )
    return fused.h


def _in_block_order(gates: Tensor) -> Tensor:
    """Return gates along the last axis in the order input, cell, forget, output."""
    import tensorflow as tf

    enter, forget, cell, leave = tf.split(gates, 4, axis=-1)
    return tf.concat([enter, cell, forget, leave], axis=-1)
