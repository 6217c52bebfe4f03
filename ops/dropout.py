"""Dropout: a place in the graph in evaluation, a seeded mask in training.

Source: ONNX Dropout-22; Srivastava et al. 2014; Salmon et al. 2011 (Philox).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import pointwise as pw
from .control import item, truth
from .errors import OpError
from .op import op
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


def _checked(ratio: float) -> None:
    if not 0 <= ratio < 1:
        raise OpError(f"dropout: wants a ratio in [0, 1), found {ratio}")


@op()
def dropout(x: TensorType, *, ratio: float) -> TensorType:
    """Return x: dropout in evaluation, kept in the graph so that training can put `dropout_train` there.

    Shapes: any, unchanged.
    """
    _checked(ratio)
    return TensorType(x.dtype, x.known_shape)


@dropout.defvjp
def _dropout_vjp(g: Any, y: Any, x: Any, *, ratio: float) -> Entries:
    return (lambda: g,)


@op()
def dropout_train(x: TensorType, key: TensorType, *, ratio: float) -> TensorType:
    """Zero each element with probability `ratio` and scale the others by 1 / (1 - ratio).

    The mask follows from the key alone (a Philox counter generator): the same key gives the same mask.

    Shapes: any, two uint64 -> the first.
    """
    _checked(ratio)
    return TensorType(x.dtype, x.known_shape)


@dropout_train.defvjp
def _dropout_train_vjp(g: Any, y: Any, x: Any, key: Any, *, ratio: float) -> Entries:
    return lambda: dropout_train(g, key, ratio=ratio), None


@op(dtype="bool")
def dropout_mask(x: TensorType, key: TensorType, *, ratio: float) -> TensorType:
    """Return where `dropout_train` keeps the elements of x.

    Shapes: any, two uint64 -> the first.
    """
    _checked(ratio)
    return TensorType(np.dtype(bool), x.known_shape)


@op()
def dropout_in_mode(x: TensorType, key: TensorType, ratio: Any, training: Any) -> tuple[TensorType, TensorType]:
    """Return x as dropout leaves it, and where it kept it, where only run time knows the ratio and whether it trains.

    Shapes: any, two uint64, one element (None for 0.5), one element (None for false) -> the first, twice.
    """
    return TensorType(x.dtype, x.known_shape), TensorType(np.dtype(bool), x.known_shape)


@dropout_in_mode.compose
def _dropout_in_mode(x: Any, key: Any, ratio: Any, training: Any) -> tuple[Any, Any]:
    at = 0.5 if ratio is None else float(item(ratio))
    if training is None or not truth(training):
        return dropout(x, ratio=at), all_kept(x)
    return dropout_train(x, key, ratio=at), dropout_mask(x, key, ratio=at)


def all_kept(x: Any) -> Any:
    """Return the mask of evaluation: true everywhere."""
    return pw.logical_or(pw.isnan(x), True)
