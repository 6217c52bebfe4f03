"""Dropout: of elements, of whole channels, and the kind that keeps mean and variance.

`inplace` puts the result in the place of the input, and returns that.
"""

from __future__ import annotations

import warnings
from typing import Any

from ....ops import create, dropout as dropout_ops, layout, pointwise as pw
from ....ops.errors import OpError, ShapeError
from ...tensor.random import next_key
from .inplace import changed

SELU_FLOOR = -1.7580993408473766
"""What SELU goes to for large negative numbers: what alpha dropout puts in the place of an element."""


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zero each element with probability p and scale the others by 1 / (1 - p), while training.

    Raises:
        OpError: if p is no probability.
    """
    _check(p)
    if inplace and training and p:
        return changed(dropout, input, p, training)
    if not training or p == 0:
        return input
    return pw.mul(input, 0.0) if p == 1 else dropout_ops.dropout_train(input, next_key(), ratio=float(p))


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zero whole channels of (N, C, L) or (C, L) with probability p and scale the others, while training.

    Raises:
        OpError: if p is no probability.
        ShapeError: if the input has another rank.
    """
    _check(p)
    if inplace and training and p:
        return changed(dropout1d, input, p, training)
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that dropout1d exists to "
            "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
            "batch dimension (i.e. 2D or 3D inputs)."
        )
    return _of_channels(input, p, training, input.ndim == 3)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zero whole channels of (N, C, H, W) with probability p and scale the others, while training.

    As in PyTorch, an input of three axes is taken as (N, C, L), with a warning.

    Raises:
        OpError: if p is no probability.
    """
    _check(p)
    if inplace and training and p:
        return changed(dropout2d, input, p, training)
    if input.ndim not in (3, 4):
        warnings.warn(_odd_rank(2, input.ndim, "3D or 4D"), stacklevel=2)
    if input.ndim == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired "
            "- input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will change in a "
            "future release to interpret the input as one without a batch dimension, i.e. shape (C, H, W). To maintain "
            "the 1D channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=2,
        )
    return _of_channels(input, p, training, True)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zero whole channels of (N, C, D, H, W) or (C, D, H, W) with probability p and scale the others, while training.

    Raises:
        OpError: if p is no probability.
    """
    _check(p)
    if inplace and training and p:
        return changed(dropout3d, input, p, training)
    if input.ndim not in (4, 5):
        warnings.warn(_odd_rank(3, input.ndim, "4D or 5D"), stacklevel=2)
    return _of_channels(input, p, training, input.ndim == 5)


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Put SELU's lower bound in the place of elements, then restore mean and variance, while training.

    Raises:
        OpError: if p is no probability.
    Source: Klambauer et al. 2017.
    """
    _check(p)
    if inplace and training and p:
        return changed(alpha_dropout, input, p, training)
    return _alpha(input, p, training, tuple(input.shape))


def feature_alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Put SELU's lower bound in the place of whole channels (axis 1); see `alpha_dropout`.

    Raises:
        OpError: if p is no probability.
        ShapeError: if the input has fewer than two axes.
    """
    _check(p)
    if inplace and training and p:
        return changed(feature_alpha_dropout, input, p, training)
    if training and input.ndim < 2:
        raise ShapeError("Feature dropout requires at least 2 dimensions in the input")
    return _alpha(input, p, training, (*input.shape[:2], *(1,) * (input.ndim - 2)))


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise OpError(f"dropout probability has to be between 0 and 1, but got {p}")


def _odd_rank(n: int, found: int, wanted: str) -> str:
    return (
        f"dropout{n}d: Received a {found}-D input to dropout{n}d, which is deprecated and will result in an error in a "
        "future release. To retain the behavior and silence this warning, please use dropout instead. Note that "
        f"dropout{n}d exists to provide channel-wise dropout on inputs with {n} spatial dimensions, a channel "
        f"dimension, and an optional batch dimension (i.e. {wanted} inputs)."
    )


def _of_channels(input: Any, p: float, training: bool, has_batch: bool) -> Any:
    """Drop channels, which are axis 1, or axis 0 without a batch axis."""
    if not training or p == 0:
        return input
    if p == 1:
        return pw.mul(input, 0.0)
    x = input if has_batch else layout.unsqueeze(input, axes=(0,))
    if x.ndim < 2:
        raise ShapeError("Feature dropout requires at least 2 dimensions in the input")
    ones = create.full_like(x, shape=(*x.shape[:2], *(1,) * (x.ndim - 2)), value=1)
    y = pw.mul(x, dropout_ops.dropout_train(ones, next_key(), ratio=float(p)))
    return y if has_batch else layout.squeeze(y, axes=(0,))


def _alpha(input: Any, p: float, training: bool, shape: tuple[Any, ...]) -> Any:
    if not training or p == 0:
        return input
    if p == 1:
        return pw.mul(input, 0.0)
    kept = dropout_ops.dropout_mask(create.full_like(input, shape=shape, value=1), next_key(), ratio=float(p))
    scale = ((SELU_FLOOR**2 * p + 1) * (1 - p)) ** -0.5
    shift = -scale * SELU_FLOOR * p
    return pw.add(pw.mul(pw.where(kept, input, SELU_FLOOR), scale), shift)
