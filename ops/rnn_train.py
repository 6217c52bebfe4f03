"""GRU and LSTM in training: they also return the gates of every step, so that their gradients compute none again.

What is kept belongs to the gradient alone: no gradient flows through it.

Axes: T steps, B batch, H hidden, D directions.
"""

from __future__ import annotations

from typing import Any

from .dims import DimLike
from .op import op
from .rnn import Cells, gru, lstm
from .types import TensorType


def _kept(result: tuple[TensorType, ...], *parts: int) -> tuple[TensorType, ...]:
    """Return a layer's types and, behind them, those of what is kept: each so many times H wide."""
    y = result[0]
    if y.known_shape is None:
        return (*result, *(y for _ in parts))
    steps, directions, batch, width = y.shape
    sizes: list[DimLike] = [n * width for n in parts]
    return (*result, *(TensorType(y.dtype, (steps, directions, batch, n)) for n in sizes))


@op()
def gru_train(
    x: TensorType, w: TensorType, r: TensorType, b: Any, lengths: Any, h0: Any, *, direction: str, cells: Cells,
    clip: float | None = None, linear_before_reset: bool = False,
) -> tuple[TensorType, ...]:  # fmt: skip
    """Return what `gru` does and, of every step, the gates z, r, n and, with `linear_before_reset`, h R^T + Rb of n.

    Shapes: as `gru` -> its results, (T, D, B, 3H), or (T, D, B, 4H) with `linear_before_reset`.
    """
    attrs = {"direction": direction, "cells": cells, "clip": clip, "linear_before_reset": linear_before_reset}
    return _kept(gru.infer(x, w, r, b, lengths, h0, **attrs), 4 if linear_before_reset else 3)


@op()
def lstm_train(
    x: TensorType, w: TensorType, r: TensorType, b: Any, lengths: Any, h0: Any, c0: Any, p: Any, *, direction: str,
    cells: Cells, clip: float | None = None, input_forget: bool = False, quantized: bool = False,
) -> tuple[TensorType, ...]:  # fmt: skip
    """Return what `lstm` does and, of every step, the gates i, o, f, n and the cell.

    Shapes: as `lstm` -> its results, (T, D, B, 4H), (T, D, B, H).
    """
    return _kept(lstm.infer(x, w, r, b, lengths, h0, c0, p, direction=direction, cells=cells), 4, 1)


gru.saving = gru_train, 2
lstm.saving = lstm_train, 3

__all__ = ["gru_train", "lstm_train"]
