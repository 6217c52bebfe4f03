"""Losses of classification.

Axes: N batch, C classes, D whatever follows.
Source: ONNX NegativeLogLikelihoodLoss-13, SoftmaxCrossEntropyLoss-13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import expr as e, pointwise as pw, reduce as red
from .dims import Dim, show
from .errors import DTypeError, OpError, ShapeError
from .expr import Var
from .index import gather, gather_elements, gather_grad, one_hot
from .layout import squeeze, unsqueeze
from .normalize import log_softmax, softmax
from .op import op
from .types import TensorType, is_float, is_integer

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]

REDUCTIONS = ("mean", "sum", "none")

_x, _t = Var("x"), Var("t")
_STEEPEST = float(np.float32(1e-12))  # as PyTorch keeps it
binary_cross_entropy = pw.Pointwise(
    "binary_cross_entropy",
    ("x", "t"),
    (_t - 1) * e.maximum(e.log1p(-_x), -100) - _t * e.maximum(e.log(_x), -100),
    partials={
        "x": (_x - _t) / e.maximum((1 - _x) * _x, _STEEPEST),
        "t": e.log1p(-_x) - e.log(_x),
    },
    result="float",
    doc="-t log x - (1 - t) log(1 - x), each logarithm at least -100, and a slope of at most 1e12, as in PyTorch.",
)


def _loss_type(name: str, x: TensorType, labels: TensorType, weights: TensorType | None, reduction: str) -> TensorType:
    if reduction not in REDUCTIONS:
        raise OpError(f"{name}: reduction is {reduction!r}, wanted one of {REDUCTIONS}")
    if not is_float(x.dtype) or not is_integer(labels.dtype):
        raise DTypeError(f"{name}: wants floats and integer labels, found {x.dtype} and {labels.dtype}")
    wanted = (x.shape[0], *x.shape[2:])
    if len(wanted) != labels.ndim or any(
        m != n for m, n in zip(wanted, labels.shape, strict=True) if not isinstance(m, Dim) and not isinstance(n, Dim)
    ):
        raise ShapeError(f"{name}: x is {show(x.shape)}, so labels are {show(wanted)}; found {show(labels.shape)}")
    if weights is not None and weights.ndim != 1:
        raise ShapeError(f"{name}: wants one weight a class, found {show(weights.shape)}")
    return TensorType(x.dtype, labels.shape if reduction == "none" else ())


@op()
def nll_loss(
    x: TensorType,
    labels: TensorType,
    weights: TensorType | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> TensorType:
    """Return minus the log-probability of each label, times the weight of its class.

    `mean` divides the sum by the sum of the weights; a label that is `ignore_index` has weight 0.

    Shapes: (N, C, *D), (N, *D), (C,) or None -> () or, with reduction `none`, (N, *D).

    Raises:
        ShapeError: if the labels do not fit x.
        DTypeError: if x is not of floats or the labels not integers.
        OpError: if the reduction is unknown, or at run time a label is no class.
    """
    return _loss_type("nll_loss", x, labels, weights, reduction)


def _counted(x: Any, labels: Any, weights: Any, ignore_index: int | None) -> tuple[Any, Any, Any]:
    """Return whether each label is ignored, its class (0 where it is), and its weight; None for no and for 1."""
    ignored, index, weight = None, labels, None
    if ignore_index is not None:
        ignored = pw.equal(labels, ignore_index)
        index = pw.where(ignored, 0, labels)
    if weights is not None:
        weight = gather(weights, index, axis=0)
    if ignored is not None:
        kept = pw.cast(pw.logical_not(ignored), dtype=str(np.dtype(x.dtype)))
        weight = kept if weight is None else pw.mul(weight, kept)
    return ignored, index, weight


@nll_loss.compose
def _nll_loss(
    x: Any, labels: Any, weights: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    ignored, index, weight = _counted(x, labels, weights, ignore_index)
    chosen = squeeze(gather_elements(x, unsqueeze(index, axes=(1,)), axis=1), axes=(1,))
    loss = pw.neg(chosen)
    if weight is not None:
        # An ignored place may hold -inf, which times 0 would be NaN.
        loss = pw.mul(loss if ignore_index is None else pw.where(ignored, 0.0, loss), weight)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return red.sum_(loss)
    return red.mean(loss) if weight is None else pw.div(red.sum_(loss), red.sum_(weight))


@op()
def softmax_cross_entropy(
    x: TensorType,
    labels: TensorType,
    weights: TensorType | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> TensorType:
    """Return minus the logarithm of the softmax of x at each label; see `nll_loss`.

    Shapes: (N, C, *D), (N, *D), (C,) or None -> () or, with reduction `none`, (N, *D).

    Raises:
        ShapeError: if the labels do not fit x.
        DTypeError: if x is not of floats or the labels not integers.
        OpError: if the reduction is unknown, or at run time a label is no class.
    """
    return _loss_type("softmax_cross_entropy", x, labels, weights, reduction)


@softmax_cross_entropy.compose
def _softmax_cross_entropy(x: Any, labels: Any, weights: Any = None, **attrs: Any) -> Any:
    return nll_loss(log_softmax(x, axis=1), labels, weights, **attrs)


@op()
def softmax_cross_entropy_grad(
    g: TensorType,
    x: TensorType,
    labels: TensorType,
    weights: TensorType | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> TensorType:
    """Return the gradient of `softmax_cross_entropy` in x: softmax(x), less 1 at each label, times what a label counts.

    Shapes: that of the loss, (N, C, *D), (N, *D), (C,) or None -> (N, C, *D).
    """
    return TensorType(x.dtype, x.shape)


@softmax_cross_entropy_grad.compose
def _softmax_cross_entropy_grad(
    g: Any, x: Any, labels: Any, weights: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    ignored, index, weight = _counted(x, labels, weights, ignore_index)
    if reduction == "mean":
        many = red.elements(tuple(labels.shape), None)
        g = red.divided(g, count=many) if weight is None else pw.div(g, red.sum_(weight))
    share = g if weight is None else pw.mul(g, weight)
    if reduction != "none":
        share = red.broadcast_to(share, shape=tuple(labels.shape))
    classes = x.shape[1]
    index = pw.where(pw.less(index, 0), pw.add(index, classes), index)
    hot = one_hot(index, depth=classes, axis=1, dtype=str(np.dtype(x.dtype)))
    dx = pw.mul(pw.sub(softmax(x, axis=1), hot), unsqueeze(share, axes=(1,)))
    return dx if ignored is None else pw.where(unsqueeze(ignored, axes=(1,)), 0.0, dx)


@softmax_cross_entropy.defvjp
def _softmax_cross_entropy_vjp(
    g: Any,
    y: Any,
    x: Any,
    labels: Any,
    weights: Any = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Entries:
    def for_weights() -> Any:
        ignored, index, weight = _counted(x, labels, weights, ignore_index)
        slope = nll_loss(log_softmax(x, axis=1), labels, ignore_index=ignore_index, reduction="none")
        if reduction == "mean":
            slope = pw.div(pw.sub(slope, y), red.sum_(weight))
        slope = pw.mul(slope, g)
        if ignored is not None:
            slope = pw.where(ignored, 0.0, slope)
        return gather_grad(slope, index, axis=0, size=weights.shape[0])

    attrs: dict[str, Any] = {"ignore_index": ignore_index, "reduction": reduction}
    return (
        lambda: softmax_cross_entropy_grad(g, x, labels, weights, **attrs),
        None,
        None if weights is None else for_weights,
    )
