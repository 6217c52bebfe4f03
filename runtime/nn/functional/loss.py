"""Losses of classification and regression. `reduction` is `mean`, `sum` or `none`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ....ops import (
    create,
    index as index_ops,
    layout,
    loss as loss_ops,
    normalize as norm_ops,
    pointwise as pw,
    reduce as red,
)
from ....ops.errors import AxisError, DTypeError, OpError, ShapeError
from ....ops.types import is_float, is_integer
from ...amp.casting import in_float32
from ...autograd.node_names import labelled
from .spatial import scalar_type


def reduced(loss: Any, reduction: str) -> Any:
    """Return a loss reduced.

    Raises:
        OpError: if the reduction is unknown.
    """
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise OpError(f"{reduction} is not a valid value for reduction")
    return red.mean(loss) if reduction == "mean" else red.sum_(loss)


def elements(x: Any) -> Any:
    """Return the array of a Tensor, to check its elements.

    None where they are not known yet, in a compiled function, and on a device, which a check would have to wait for.
    """
    array = getattr(x, "_array", x)
    return array if isinstance(array, np.ndarray) else None


def cross_entropy(
    input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Return minus the logarithm of the softmax of the scores at each target.

    Args:
        input: scores (N, C, *D) or (C,).
        target: class indices (N, *D), or probabilities of the shape of the scores.
        weight: one a class.
        ignore_index: targets of this class do not count.
        reduction: `mean` divides by the weights of the targets that count; by N for probabilities.
        label_smoothing: this share of each target is spread over all classes.

    Raises:
        OpError: if shapes or element types do not fit; AxisError, an IndexError, if a target is no class.
    """
    axis = 0 if input.ndim == 1 else 1
    if not 0 <= label_smoothing <= 1:
        raise OpError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if not hasattr(target, "dtype"):
        raise TypeError(
            f"cross_entropy_loss(): argument 'target' (position 2) must be Tensor, not {type(target).__name__}"
        )
    if tuple(target.shape) == tuple(input.shape):
        if not is_float(target.dtype):
            kind = scalar_type(target.dtype)
            raise DTypeError(f"Expected floating point type for target with class probabilities, got {kind}")
        if ignore_index >= 0:
            raise OpError("ignore_index is not supported for floating point target")
        _check_weight(weight, input.shape[axis])
        logp = norm_ops.log_softmax(input, axis=axis)
        return _soft_targets(logp, target, weight, reduction, label_smoothing, axis)
    if not label_smoothing:
        return _at_labels(loss_ops.softmax_cross_entropy, input, target, weight, ignore_index, reduction)
    logp = norm_ops.log_softmax(input, axis=axis)
    return pw.add(
        pw.mul(nll_loss(logp, target, weight, ignore_index=ignore_index, reduction=reduction), 1 - label_smoothing),
        pw.mul(_spread(logp, target, weight, ignore_index, reduction, axis), label_smoothing / input.shape[axis]),
    )


def _per_class(weight: Any, ndim: int, axis: int) -> Any:
    return layout.reshape(weight, shape=(-1, *(1,) * (ndim - axis - 1)))


def _soft_targets(logp: Any, target: Any, weight: Any, reduction: str, smoothing: float, axis: int) -> Any:
    if smoothing:
        target = pw.add(pw.mul(target, 1 - smoothing), smoothing / logp.shape[axis])
    each = pw.mul(logp, target)
    if weight is not None:
        each = pw.mul(each, _per_class(weight, logp.ndim, axis))
    return reduced(pw.neg(red.sum_(each, axes=(axis,))), reduction)


def _spread(logp: Any, target: Any, weight: Any, ignore_index: int, reduction: str, axis: int) -> Any:
    """Return the loss against all classes alike, where the target counts."""
    each = logp if weight is None else pw.mul(logp, _per_class(weight, logp.ndim, axis))
    ignored = pw.equal(target, ignore_index)
    total = pw.where(ignored, 0.0, pw.neg(red.sum_(each, axes=(axis,))))
    if reduction != "mean":
        return reduced(total, reduction)
    kept = pw.cast(pw.logical_not(ignored), dtype=str(logp.dtype))
    if weight is not None:
        kept = pw.mul(kept, index_ops.gather(weight, pw.where(ignored, 0, target), axis=0))
    return pw.div(red.sum_(total), red.sum_(kept))


def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Return minus the log-probability of each target class, weighted; see `cross_entropy`."""
    return _at_labels(loss_ops.nll_loss, input, target, weight, ignore_index, reduction)


def _at_labels(op: Any, input: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """Return a loss of classes, also of one example without an axis for it."""
    if input.ndim == 1:
        wide, one = layout.unsqueeze(input, axes=(0,)), layout.unsqueeze(target, axes=(0,))
        loss = _at_labels(op, wide, one, weight, ignore_index, reduction)
        return layout.squeeze(loss, axes=(0,)) if reduction == "none" else loss
    if reduction not in loss_ops.REDUCTIONS:
        raise OpError(f"{reduction} is not a valid value for reduction")
    _check_labels(input, target, weight)
    skipped = ignore_index if _checked_classes(target, input.shape[1], ignore_index) else None
    return labelled(op(input, target, weight, ignore_index=skipped, reduction=reduction), "NllLoss")


def _check_labels(input: Any, target: Any, weight: Any) -> None:
    if input.ndim < 2:
        raise ShapeError(f"Expected at least 1 dimension, a class a score; found input of shape {list(input.shape)}")
    if not is_integer(target.dtype):
        raise DTypeError(f"expected target dtype to be Long or Byte, but got {scalar_type(target.dtype)}")
    if target.ndim and input.shape[0] != target.shape[0]:
        raise ShapeError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size ({target.shape[0]})."
        )
    if input.ndim == 2 and target.ndim > 1:
        raise ShapeError("0D or 1D target tensor expected, multi-target not supported")
    wanted = (input.shape[0], *input.shape[2:])
    if target.ndim != len(wanted) or any(
        m != n for m, n in zip(wanted, target.shape, strict=True) if isinstance(m, int) and isinstance(n, int)
    ):
        raise ShapeError(f"Expected target size {list(wanted)}, got {list(target.shape)}")
    _check_weight(weight, input.shape[1])


def _check_weight(weight: Any, classes: int) -> None:
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of "
            f"shape: {list(weight.shape)}"
        )


def _checked_classes(target: Any, classes: int, ignore_index: int) -> bool:
    """Return whether a target may be the ignored class; where targets are not known yet, it may be."""
    array = elements(target)
    if array is None or not array.size:
        return True
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high < classes:
        return ignore_index >= 0
    wrong = array[((array < 0) | (array >= classes)) & (array != ignore_index)]
    if wrong.size:
        raise AxisError(f"Target {int(wrong.reshape(-1)[0])} is out of bounds.")
    return True


def _compared(input: Any, target: Any) -> None:
    """Warn of sizes that differ, as PyTorch does."""
    a, b = tuple(input.shape), tuple(target.shape)
    if a != b and all(isinstance(n, int) for n in (*a, *b)):
        warnings.warn(
            f"Using a target size ({list(b)}) that is different to the input size ({list(a)}). This will likely lead "
            "to incorrect results due to broadcasting. Please ensure they have the same size.",
            UserWarning,
            stacklevel=3,
        )


def _weighted(loss: Any, input: Any, weight: Any, reduction: str) -> Any:
    """Return a loss times a weight an element, whose mean divides by the weights."""
    if weight is None:
        return reduced(loss, reduction)
    if tuple(weight.shape) != tuple(input.shape):
        raise ShapeError("Weights and input must have the same size.")
    loss = loss * weight
    return red.sum_(loss) / red.sum_(weight) if reduction == "mean" else reduced(loss, reduction)


def mse_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """Return the squared difference; with a weight an element, `mean` divides by the weights."""
    _compared(input, target)
    input, target = in_float32(input, target)
    d = input - target
    return labelled(_weighted(pw.mul(d, d), input, weight, reduction), "MseLoss")


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """Return the absolute difference; with a weight an element, `mean` divides by the weights."""
    _compared(input, target)
    input, target = in_float32(input, target)
    return _weighted(pw.abs_(input - target), input, weight, reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Return d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.

    Raises:
        OpError: if beta is negative.
    """
    if beta < 0:
        raise OpError("smooth_l1_loss does not support negative values for beta.")
    _compared(input, target)
    input, target = in_float32(input, target)
    if beta == 0:
        return reduced(pw.abs_(input - target), reduction)
    return labelled(reduced(pw.mul(_huber(input - target, float(beta)), 1 / beta), reduction), "SmoothL1Loss")


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """Return d^2 / 2 where |d| < delta, else delta (|d| - delta / 2); times a weight an element.

    Raises:
        OpError: if delta is not positive.
    """
    if delta <= 0:
        raise OpError("huber_loss does not support non-positive values for delta.")
    _compared(input, target)
    input, target = in_float32(input, target)
    loss = _huber(input - target, float(delta))
    if weight is not None:
        if tuple(weight.shape) != tuple(input.shape):
            raise ShapeError("Weights and input must have the same size.")
        loss = loss * weight
    return labelled(reduced(loss, reduction), "HuberLoss")


def _huber(d: Any, delta: float) -> Any:
    size = pw.abs_(d)
    outside = pw.mul(pw.sub(size, 0.5 * delta), delta)
    return pw.where(pw.less(size, delta), pw.mul(pw.mul(d, d), 0.5), outside)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """Return minus t log(x) + (1 - t) log(1 - x), each logarithm at least -100.

    Raises:
        OpError: if sizes differ, or an element of the input is not between 0 and 1.
    """
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(
            f"Using a target size ({list(target.shape)}) that is different to the input size ({list(input.shape)}) is "
            "deprecated. Please ensure they have the same size."
        )
    array = elements(input)
    if array is not None and array.size and not (array.min() >= 0 and array.max() <= 1):
        raise OpError("all elements of input should be between 0 and 1")
    input, target = in_float32(input, target)
    if target.dtype != input.dtype:
        raise DTypeError(
            f"binary_cross_entropy: Found dtype {scalar_type(target.dtype)} but expected {scalar_type(input.dtype)}"
        )
    loss = loss_ops.binary_cross_entropy(input, target)
    return labelled(reduced(loss if weight is None else loss * weight, reduction), "BinaryCrossEntropy")


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Return `binary_cross_entropy` of the sigmoid of the scores, without overflow.

    Args:
        input: scores.
        target: probabilities.
        weight: one an element, or what broadcasts to that.
        reduction: how losses become one.
        pos_weight: of the part of the loss that targets of 1 make, one a class.

    Raises:
        ShapeError: if sizes differ.
    """
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(f"Target size ({list(target.shape)}) must be the same as input size ({list(input.shape)})")
    input, target = in_float32(input, target)
    softplus = pw.softplus(pw.neg(input))
    if pos_weight is not None:
        softplus = softplus * ((pos_weight - 1.0) * target + 1.0)
    loss = (1.0 - target) * input + softplus
    found = reduced(loss if weight is None else loss * weight, reduction)
    return labelled(found, "BinaryCrossEntropyWithLogits")


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Any:
    """Return t (log t - x) of log-probabilities x; `batchmean` divides the sum by the batch size.

    Args:
        input: log-probabilities.
        target: probabilities, or their logarithms.
        reduction: `batchmean` is the divergence; `mean` divides by the number of elements, and warns of that.
        log_target: whether targets are logarithms.
    """
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size.'batchmean' divides "
            "only by the batch size, and aligns with the KL div math definition.'mean' will be changed to behave the "
            "same as 'batchmean' in the next major release.",
            UserWarning,
            stacklevel=2,
        )
    input, target = in_float32(input, target)
    if log_target:
        loss = pw.mul(pw.exp(target), target - input)
    else:
        positive = pw.greater(target, 0.0)
        logarithm = pw.log(pw.where(positive, target, 1.0))
        loss = pw.mul(target, logarithm) - target * input
    if reduction == "batchmean":
        return pw.div(red.sum_(loss), float(input.shape[0])) if input.ndim else red.sum_(loss)
    return reduced(loss, reduction)


def poisson_nll_loss(
    input: Any, target: Any, *, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Any:
    """Return minus the log-probability of counts under a Poisson distribution, less its constant.

    Args:
        input: logarithms of the rates, or the rates.
        target: counts.
        log_input: whether rates are given by their logarithms.
        full: add the constant log(t!) by Stirling's formula, for counts above 1.
        eps: keeps the logarithm of a rate finite.
        reduction: how losses become one.
    """
    input, target = in_float32(input, target)
    loss = pw.exp(input) - target * input if log_input else input - target * pw.log(pw.add(input, eps))
    if full:
        above = pw.greater(target, 1.0)
        t = pw.where(above, target, 1.0)
        # t log t - t + log(2 pi t) / 2
        stirling = pw.add(pw.sub(pw.mul(pw.add(t, 0.5), pw.log(t)), t), 0.9189385332046727)
        loss = loss + pw.where(above, stirling, 0.0)
    return reduced(loss, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """Return minus the log-probability of targets under normal distributions, less its constant.

    Args:
        input: means.
        target: what was found.
        var: variances: a number, one an element, or one along the last axis or another that is 1 or left out.
        full: add the constant log(2 pi) / 2.
        eps: the least variance; the gradient does not see it.
        reduction: how losses become one.

    Raises:
        OpError: if a variance is negative, or their shape does not fit.
    """
    if not hasattr(var, "shape"):
        var = create.full_like(input, shape=tuple(input.shape), value=float(var))
    array = elements(var)
    if array is not None and bool((array < 0).any()):
        raise OpError("var has negative entry/entries")
    a, b = tuple(input.shape), tuple(var.shape)
    if a != b:
        if a[:-1] == b:
            var = layout.unsqueeze(var, axes=(len(b),))
        elif len(a) != len(b) or sum(n for m, n in zip(a, b, strict=True) if m != n) != 1:
            raise ShapeError("var is of incorrect size")
    short = pw.sub(pw.maximum(var, eps), var)
    var = pw.add(var, short.detach() if hasattr(short, "detach") else short)
    d = input - target
    loss = pw.mul(pw.add(pw.log(var), d * d / var), 0.5)
    return reduced(pw.add(loss, 0.9189385332046727) if full else loss, reduction)


__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
]
