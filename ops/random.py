"""Random draws. Each follows from a key alone (a Philox counter generator): the same key gives the same numbers.

A graph is given one key a run and folds a number into it for each random op, so that a trace freezes nothing. Nothing
here has a gradient.

Source: ONNX RandomNormal-22, RandomUniform-22, Bernoulli-22, Multinomial-22; Salmon et al. 2011 (Philox).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .create import fill
from .errors import DTypeError, ShapeError
from .op import op
from .types import SequenceType, TensorType, ValueType, is_float

KEY_TYPE = TensorType(np.dtype(np.uint64), (2,))


@op(dtype="uint64")
def fold_key(key: TensorType, *, number: int) -> TensorType:
    """Return the key that follows from a key and a number.

    Shapes: (2,), unchanged.
    """
    return KEY_TYPE


@op()
def key_sequence(key: TensorType, xs: ValueType) -> SequenceType:
    """Return a key for each value of a sequence.

    Shapes: (2,), a sequence -> a sequence of (2,).
    """
    return SequenceType(KEY_TYPE)


@key_sequence.compose
def _key_sequence(key: Any, xs: list[Any]) -> list[Any]:
    return [fold_key(key, number=1 + i) for i in range(len(xs))]


@op()
def random_uniform(key: TensorType, shape: TensorType, *, low: float, high: float, dtype: str) -> TensorType:
    """Draw from [low, high), evenly.

    Shapes: (2,), a shape -> that shape.

    Raises:
        DTypeError: if `dtype` is no float.
    """
    return _drawn("random_uniform", shape, dtype)


@op()
def random_normal(key: TensorType, shape: TensorType, *, mean: float, std: float, dtype: str) -> TensorType:
    """Draw from a normal distribution.

    Shapes: (2,), a shape -> that shape.

    Raises:
        DTypeError: if `dtype` is no float.
    """
    return _drawn("random_normal", shape, dtype)


def _drawn(name: str, shape: TensorType, dtype: str) -> TensorType:
    if not is_float(dtype):
        raise DTypeError(f"{name}: draws floats, found {dtype}")
    return fill.infer(shape, value=0, dtype=dtype)  # type: ignore[no-any-return]


@op()
def bernoulli(p: TensorType, key: TensorType, *, dtype: str) -> TensorType:
    """Draw 1 with the probability that each element says, else 0.

    Shapes: any, (2,) -> the first.
    """
    return TensorType(np.dtype(dtype), p.known_shape)


@op()
def multinomial(scores: TensorType, key: TensorType, *, count: int, dtype: str) -> TensorType:
    """Draw classes for each row, with replacement; e^score is in proportion to the probability of a class.

    Shapes: (N, classes), (2,) -> (N, count).

    Raises:
        ShapeError: if the scores are no matrix.
    """
    if scores.ndim != 2:
        raise ShapeError(f"multinomial: wants scores (N, classes), found rank {scores.ndim}")
    return TensorType(np.dtype(dtype), (scores.shape[0], count))
