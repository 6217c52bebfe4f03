"""Steps of optimizers."""

from __future__ import annotations

from ...op import namespace
from ...optimize import adam_update, sgd_update
from ...types import Array


@sgd_update.kernel("array")
def _sgd_update(
    p: Array, g: Array, buffer: Array | None, numbers: Array, *, decays: bool, nesterov: bool
) -> tuple[Array, ...]:
    lr, weight_decay, momentum, keep = numbers
    if decays:
        g = p * weight_decay + g
    if buffer is None:
        return (p - g * lr,)
    buffer = buffer * momentum + g * keep
    return p - (g + buffer * momentum if nesterov else buffer) * lr, buffer


@adam_update.kernel("array")
def _adam_update(
    p: Array, g: Array, mean: Array, square: Array, largest: Array | None, numbers: Array, *, decays: bool,
    decoupled: bool,
) -> tuple[Array, ...]:  # fmt: skip
    xp = namespace(p)
    decay, grow_mean, keep_square, grow_square, square_scale, eps, rate = numbers
    if decays and decoupled:
        p = p * decay
    elif decays:
        g = p * decay + g
    mean = mean + (g - mean) * grow_mean
    square = square * keep_square + g * g * grow_square
    made: tuple[Array, ...] = (mean, square)
    if largest is not None:
        square = xp.maximum(largest, square)
        made = (*made, square)
    return p - mean / (xp.sqrt(square) / square_scale + eps) * rate, *made
