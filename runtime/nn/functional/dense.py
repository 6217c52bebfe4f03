"""Linear maps, embeddings, attention, dropout, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....ops import dropout as dropout_ops, index, layout, matmul, normalize as norm_ops, pointwise as pw
from ...random import next_key


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """Return x W^T + b. Shapes: (*, in), (out, in), (out,) -> (*, out)."""
    y = matmul.matmul(input, layout.transpose(weight, perm=(1, 0)) if weight.ndim == 2 else weight)
    return y if bias is None else pw.add(y, bias)


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """Return the rows of a table at indices; the row at `padding_idx` gets no gradient."""
    y = index.gather(weight, input, axis=0)
    if padding_idx is None:
        return y
    ignored = layout.unsqueeze(pw.equal(input, padding_idx % weight.shape[0]), axes=(input.ndim,))
    frozen = y.detach() if hasattr(y, "detach") else y
    return pw.where(ignored, frozen, y)


def one_hot(input: Any, num_classes: int = -1) -> Any:
    """Return int64 ones at the indices along a new last axis."""
    if num_classes == -1:
        num_classes = int(input.array.max()) + 1
    return index.one_hot(input, depth=num_classes, axis=input.ndim, dtype="int64")


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zero each element with probability p and scale the others by 1 / (1 - p), while training."""
    if not training or p == 0:
        return input
    if p == 1:
        return pw.mul(input, 0.0)
    return dropout_ops.dropout_train(input, next_key(), ratio=float(p))


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """Divide by the p-norm along an axis, or by eps where that is larger."""
    length = input.norm(p, dim, True)
    return pw.div(input, pw.maximum(length, eps))


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Grow the last axes: `pad` is (low, high) of the last one, then of the one before it, and so on."""
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    pairs = [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)]
    full = ((0, 0),) * (input.ndim - len(pairs)) + tuple(reversed(pairs))
    fill = None if not value else np.asarray(value, input.dtype)
    return layout.pad(input, fill, pads=full, mode=modes[mode])


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None,
) -> Any:  # fmt: skip
    """Return softmax(q k^T scale + mask) v; a mask of truth values keeps where it holds."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = pw.mul(matmul.matmul(query, matmul.swapped(key)), factor)
    if is_causal:
        attn_mask = np.tril(np.ones((query.shape[-2], key.shape[-2]), bool))
    if attn_mask is not None:
        if attn_mask.dtype == np.dtype(bool):
            scores = pw.where(attn_mask, scores, -math.inf)
        else:
            scores = pw.add(scores, attn_mask)
    weights = norm_ops.softmax(scores, axis=-1)
    return matmul.matmul(dropout(weights, dropout_p), value)
