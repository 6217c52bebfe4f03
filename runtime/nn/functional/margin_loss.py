"""Losses with a margin: of distances, of rankings and of labels. `reduction` is `mean`, `sum` or `none`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....ops import cumulative, index as index_ops, layout, pointwise as pw, reduce as red
from ....ops.errors import OpError, ShapeError
from ...amp.casting import in_float32
from .distance import pairwise_distance
from .loss import elements, reduced


def _at_least_0(x: Any) -> Any:
    """Return x where it is positive, else 0; the gradient at 0 is x's."""
    return pw.clip(x, 0.0, math.inf)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean") -> Any:
    """Return max(0, -t (x1 - x2) + margin): t = 1 where x1 should rank higher, -1 where x2.

    Raises:
        ShapeError: if the ranks differ.
    """
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
            f"{list(input1.shape)}, input2: {list(input2.shape)}, target: {list(target.shape)} "
        )
    input1, input2, target = in_float32(input1, input2, target)
    return reduced(_at_least_0(pw.neg(target) * (input1 - input2) + margin), reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, *, reduction: str = "mean") -> Any:
    """Return x where t = 1, max(0, margin - x) where t = -1."""
    input, target = in_float32(input, target)
    far = pw.where(pw.equal(target, 1), 0.0, _at_least_0(pw.sub(margin, input)))
    return reduced(pw.add(far, pw.where(pw.equal(target, -1), 0.0, input)), reduction)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Any:
    """Return 1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1.

    Shapes: (N, D), (N, D), (N,) -> (N,), or (D,), (D,), () -> ().

    Raises:
        ShapeError: if shapes do not fit.
    """
    if target.ndim not in (0, 1) or not input1.ndim == input2.ndim == target.ndim + 1:
        shapes = ", ".join(str(list(t.shape)) for t in (input1, input2, target))
        raise ShapeError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, and there are 0D and 1D targets; "
            f"found inputs and target with sizes {shapes}"
        )
    input1, input2 = in_float32(input1, input2)
    products = [red.sum_(a * b, axes=(-1,)) for a, b in ((input1, input2), (input1, input1), (input2, input2))]
    lengths = pw.sqrt(pw.mul(pw.add(products[1], 1e-12), pw.add(products[2], 1e-12)))
    cosine = pw.div(products[0], lengths)
    alike = pw.where(pw.equal(target, 1), pw.sub(1.0, cosine), 0.0)
    return reduced(pw.add(alike, pw.where(pw.equal(target, -1), _at_least_0(pw.sub(cosine, margin)), 0.0)), reduction)


def soft_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Return log(1 + e^(-t x)), t being 1 or -1."""
    input, target = in_float32(input, target)
    return reduced(pw.softplus(pw.neg(target * input)), reduction)


def multilabel_soft_margin_loss(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """Return the binary cross entropy of each class's score, averaged over the classes, which are the last axis."""
    loss = target * pw.softplus(pw.neg(input)) + (1 - target) * pw.softplus(input)
    if weight is not None:
        loss = loss * weight
    return reduced(red.mean(loss, axes=(-1,)), reduction)


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, *, reduction: str = "mean"
) -> Any:
    """Return the sum over the other classes i of max(0, margin - x[t] + x[i])^p, divided by the number of classes.

    Args:
        input: scores (N, C) or (C,).
        target: classes (N,) or ().
        p: 1 or 2.
        margin: the target's score should be so much above the others.
        weight: one a class, of the target.
        reduction: how losses become one.

    Raises:
        OpError: if p is another, shapes do not fit or a target is no class.
    """
    if p not in (1, 2):
        raise OpError("only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise ShapeError("weight must be one-dimensional")
    if input.ndim not in (1, 2):
        raise ShapeError(f"multi_margin_loss: wants scores (N, C) or (C,), found {list(input.shape)}")
    single = input.ndim == 1
    (input,) = in_float32(input)
    x = layout.unsqueeze(input, axes=(0,)) if single else input
    if (target.ndim and (target.ndim != 1 or target.shape[0] != x.shape[0])) or (not target.ndim and not single):
        raise ShapeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch "
            f"size). Expected target size [{x.shape[0]}], but got {list(target.shape)}. Input has "
            f"shape {list(input.shape)}."
        )
    labels, classes = layout.reshape(target, shape=(-1,)), x.shape[1]
    array = elements(target)
    if array is not None and array.size and not (array.min() >= 0 and array.max() < classes):
        raise OpError("target out of range")
    own = index_ops.gather_elements(x, layout.unsqueeze(labels, axes=(1,)), axis=1)
    short = pw.relu(pw.add(pw.sub(x, own), float(margin)))
    if p == 2:
        short = pw.mul(short, short)
    if weight is not None:
        short = short * layout.unsqueeze(index_ops.gather(weight, labels, axis=0), axes=(1,))
    others = pw.where(index_ops.one_hot(labels, depth=classes, axis=1), 0.0, short)
    return _each(red.mean(others, axes=(1,)), reduction, single)


def multilabel_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Return the sum over targets j and other classes i of max(0, 1 - x[j] + x[i]), divided by the number of classes.

    Args:
        input: scores (N, C) or (C,).
        target: of the same shape: classes up to the first -1.
        reduction: how losses become one.

    Raises:
        OpError: if shapes differ or a target is no class.
    """
    if tuple(input.shape) != tuple(target.shape) or input.ndim not in (1, 2):
        raise ShapeError(f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    single, classes = input.ndim == 1, input.shape[-1]
    (input,) = in_float32(input)
    x, labels = (layout.unsqueeze(t, axes=(0,)) if single else t for t in (input, target))
    array = elements(target)
    if array is not None and array.size and not (array.min() >= -1 and array.max() < classes):
        raise OpError("argument #2 'target' is out of range")
    ended = cumulative.cumsum(pw.cast(pw.less(labels, 0), dtype="int64"), axis=1)
    used = pw.equal(ended, 0)
    labels = pw.where(used, labels, 0)
    hot = pw.logical_and(index_ops.one_hot(labels, depth=classes, axis=2), layout.unsqueeze(used, axes=(2,)))
    is_target = pw.greater(red.max_(pw.cast(hot, dtype="int64"), axes=(1,)), 0)
    own = index_ops.gather_elements(x, labels, axis=1)
    pairs = pw.relu(pw.add(pw.sub(layout.unsqueeze(x, axes=(1,)), layout.unsqueeze(own, axes=(2,))), 1.0))
    counts = pw.logical_and(layout.unsqueeze(used, axes=(2,)), layout.unsqueeze(pw.logical_not(is_target), axes=(1,)))
    loss = pw.div(red.sum_(pw.where(counts, pairs, 0.0), axes=(1, 2)), float(classes))
    return _each(loss, reduction, single)


def _each(loss: Any, reduction: str, single: bool) -> Any:
    """Return losses reduced, or the only one."""
    return layout.squeeze(loss, axes=(0,)) if single and reduction == "none" else reduced(loss, reduction)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6, swap: bool = False,
    *, reduction: str = "mean",
) -> Any:  # fmt: skip
    """Return max(0, d(a, p) - d(a, n) + margin) with p-norm distances d. Source: Balntas et al. 2016 (swap).

    Args:
        anchor: (N, D) or (D,).
        positive: what should be nearer.
        negative: what should be farther.
        margin: by so much.
        p: of the norm.
        eps: added to differences.
        swap: take the distance from positive to negative where that is smaller.
        reduction: how losses become one.

    Raises:
        OpError: if the margin is not positive or the ranks differ.
    """
    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=lambda a, b: pairwise_distance(a, b, p, eps), margin=margin,
        swap=swap, reduction=reduction,
    )  # fmt: skip


def triplet_margin_with_distance_loss(
    anchor: Any, positive: Any, negative: Any, *, distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0, swap: bool = False, reduction: str = "mean",
) -> Any:  # fmt: skip
    """Return `triplet_margin_loss` with distances of one's own; `pairwise_distance` by default."""
    if reduction not in ("mean", "sum", "none"):
        raise OpError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise OpError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )
    anchor, positive, negative = in_float32(anchor, positive, negative)
    distance = distance_function or pairwise_distance
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = pw.minimum(far, distance(positive, negative))
    return reduced(_at_least_0(near - far + float(margin)), reduction)


__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]
