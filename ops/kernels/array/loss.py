"""Losses of classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...loss import nll_loss, softmax_cross_entropy, softmax_cross_entropy_grad
from ...normalize import log_softmax, softmax
from ...op import namespace
from ...types import Array


@softmax_cross_entropy.kernel("array")
def _softmax_cross_entropy(x: Array, labels: Array, weights: Array | None = None, **attrs: Any) -> Array:
    loss: Array = nll_loss(log_softmax(x, axis=1), labels, weights, **attrs)
    return loss


@softmax_cross_entropy_grad.kernel("array")
def _softmax_cross_entropy_grad(
    g: Array,
    x: Array,
    labels: Array,
    weights: Array | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Array:
    xp = namespace(x)
    ignored = None if ignore_index is None else labels == ignore_index
    index = labels if ignored is None else xp.where(ignored, 0, labels)
    weight = xp.ones(labels.shape, x.dtype) if weights is None else weights[index].astype(x.dtype, copy=False)
    if ignored is not None:
        weight = xp.where(ignored, 0, weight).astype(x.dtype, copy=False)
    dx = softmax(x, axis=1)
    with np.errstate(all="ignore"):
        share = (g / weight.sum() if reduction == "mean" else g) * weight
        places = [xp.arange(n).reshape(-1, *(1,) * (index.ndim - 1 - i)) for i, n in enumerate(index.shape)]
        dx[(places[0], xp.where(index < 0, index + x.shape[1], index), *places[1:])] -= 1
        dx *= xp.expand_dims(share.astype(x.dtype, copy=False), 1)
    if ignored is not None:
        xp.copyto(dx, 0, where=xp.expand_dims(ignored, 1))
    return dx
