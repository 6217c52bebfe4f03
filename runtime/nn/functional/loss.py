"""Losses. `reduction` is `mean`, `sum` or `none`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import layout, loss as loss_ops, normalize as norm_ops, pointwise as pw, reduce as red
from ....ops.errors import OpError, ShapeError
from ....ops.types import is_float


def _reduced(loss: Any, reduction: str) -> Any:
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise OpError(f"{reduction} is not a valid value for reduction: wanted mean, sum or none")
    return red.mean(loss) if reduction == "mean" else red.sum_(loss)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Return minus the logarithm of the softmax of the scores at each target.

    Args:
        input: scores (N, C, *D) or (C,).
        target: class indices (N, *D), or probabilities of the shape of the scores.
        weight: one a class.
        ignore_index: targets of this class do not count.
        reduction: `mean` divides by the weights of the targets that count; by N for probabilities.
        label_smoothing: this share of each target is spread over all classes.
    """
    axis = 0 if input.ndim == 1 else 1
    if not 0 <= label_smoothing <= 1:
        raise OpError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if not label_smoothing and not is_float(target.dtype):
        return _at_labels(loss_ops.softmax_cross_entropy, input, target, weight, ignore_index, reduction)
    logp = norm_ops.log_softmax(input, axis=axis)
    if is_float(target.dtype) and tuple(target.shape) == tuple(input.shape):
        return _soft_targets(logp, target, weight, reduction, label_smoothing, axis)
    hard = nll_loss(logp, target, weight, ignore_index, reduction)
    if not label_smoothing:
        return hard
    return pw.add(
        pw.mul(hard, 1 - label_smoothing),
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
    return _reduced(pw.neg(red.sum_(each, axes=(axis,))), reduction)


def _spread(logp: Any, target: Any, weight: Any, ignore_index: int, reduction: str, axis: int) -> Any:
    """Return the loss against all classes alike, where the target counts."""
    each = logp if weight is None else pw.mul(logp, _per_class(weight, logp.ndim, axis))
    ignored = pw.equal(target, ignore_index)
    total = pw.where(ignored, 0.0, pw.neg(red.sum_(each, axes=(axis,))))
    if reduction != "mean":
        return _reduced(total, reduction)
    kept = pw.cast(pw.logical_not(ignored), dtype=str(logp.dtype))
    if weight is not None:
        from ....ops.index import gather

        kept = pw.mul(kept, gather(weight, pw.where(ignored, 0, target), axis=0))
    return pw.div(red.sum_(total), red.sum_(kept))


def nll_loss(input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Return minus the log-probability of each target class, weighted."""
    return _at_labels(loss_ops.nll_loss, input, target, weight, ignore_index, reduction)


def _at_labels(op: Any, input: Any, target: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """Return a loss of classes, also of one example without an axis for it."""
    if input.ndim == 1:
        wide, one = layout.unsqueeze(input, axes=(0,)), layout.unsqueeze(target, axes=(0,))
        loss = _at_labels(op, wide, one, weight, ignore_index, reduction)
        return layout.squeeze(loss, axes=(0,)) if reduction == "none" else loss
    if input.shape[0] != target.shape[0]:
        raise ShapeError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size ({target.shape[0]})."
        )
    skipped = ignore_index if ignore_index >= 0 or _any_equal(target, ignore_index) else None
    return op(input, target, weight, ignore_index=skipped, reduction=reduction)


def _any_equal(target: Any, value: int) -> bool:
    """Whether a target is the ignored class; where the targets are not known yet, it may be."""
    array = getattr(target, "array", target)
    return True if array is None or hasattr(array, "interpret_priority") else bool((array == value).any())


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Return the squared difference."""
    d = pw.sub(input, target)
    return _reduced(pw.mul(d, d), reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Return the absolute difference."""
    return _reduced(pw.abs_(pw.sub(input, target)), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Return d^2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
    if beta == 0:
        return l1_loss(input, target, reduction)
    return pw.mul(huber_loss(input, target, reduction, beta), 1 / beta)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """Return d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2)."""
    d = pw.sub(input, target)
    size = pw.abs_(d)
    inside = pw.mul(pw.mul(d, d), 0.5)
    outside = pw.mul(pw.sub(size, 0.5 * delta), float(delta))
    return _reduced(pw.where(pw.less(size, float(delta)), inside, outside), reduction)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """Return minus t log(x) + (1 - t) log(1 - x), each logarithm at least -100."""
    yes = pw.clip(pw.log(input), -100.0, np.inf)
    no = pw.clip(pw.log(pw.sub(1.0, input)), -100.0, np.inf)
    loss = pw.neg(pw.add(pw.mul(target, yes), pw.mul(pw.sub(1.0, target), no)))
    return _reduced(loss if weight is None else pw.mul(loss, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Return `binary_cross_entropy` of the sigmoid of the scores, without overflow."""
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(f"Target size {tuple(target.shape)} must be the same as input size {tuple(input.shape)}")
    softplus = pw.softplus(pw.neg(input))
    if pos_weight is not None:
        softplus = pw.mul(softplus, pw.add(pw.mul(pw.sub(pos_weight, 1.0), target), 1.0))
    loss = pw.add(pw.mul(pw.sub(1.0, target), input), softplus)
    return _reduced(loss if weight is None else pw.mul(loss, weight), reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """Return t (log t - x) of log-probabilities x; `batchmean` divides the sum by the batch size."""
    if log_target:
        loss = pw.mul(pw.exp(target), pw.sub(target, input))
    else:
        positive = pw.greater(target, 0.0)
        logarithm = pw.log(pw.where(positive, target, 1.0))
        loss = pw.where(positive, pw.mul(target, pw.sub(logarithm, input)), 0.0)
    if reduction == "batchmean":
        return pw.mul(red.sum_(loss), 1 / input.shape[0])
    return _reduced(loss, reduction)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """Return the cosine of the angle along an axis."""
    lengths = [pw.maximum(red.l2_norm(x, axes=(dim,), keepdims=True), eps) for x in (x1, x2)]
    return red.sum_(pw.mul(pw.div(x1, lengths[0]), pw.div(x2, lengths[1])), axes=(dim,))
