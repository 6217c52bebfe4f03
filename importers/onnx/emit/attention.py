"""Emitters: attention and rotary embedding; before opset 23 as what they consist of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ops import attention as ops, create, cumulative, layout, normalize, pointwise as pw, reduce as red
from ....ops.dims import DimLike
from ....ops.matmul import matmul
from ....runtime.graph.graph import Value
from .create import of_type
from .registry import emits, expands
from .writer import Writer

BOOL = np.dtype(bool)


@emits(ops.attention)
def attention(
    w: Writer, q: Value, k: Value, v: Value, mask: Any = None, lengths: Any = None, starts: Any = None,
    sink: Any = None, *, scale: float, softcap: float = 0.0, left: int = -1, right: int = -1, offset: DimLike = 0,
) -> Any:  # fmt: skip
    """Attention, where a mask and causality are all that hides keys."""
    plain = lengths is None and starts is None and sink is None and left == -1
    if w.opset < 23 or not plain or right not in (-1, 0) or offset != 0:
        return None
    causal = 1 if right == 0 else None
    return w.add("Attention", q, k, v, mask, scale=scale, softcap=softcap or None, is_causal=causal)


@expands(ops.attention)
def attended(q: Any, k: Any, v: Any, *rest: Any, **attrs: Any) -> Any:
    """Weigh the values."""
    p = ops.attention_weights(q, k, *rest, **attrs)
    return layout.reshape(matmul(ops.grouped(p, k), v), shape=(*q.shape[:3], v.shape[3]))


@expands(ops.attention_weights)
def weights(
    q: Any, k: Any, mask: Any = None, lengths: Any = None, starts: Any = None, sink: Any = None, *, scale: float,
    softcap: float = 0.0, left: int = -1, right: int = -1, offset: DimLike = 0,
) -> Any:  # fmt: skip
    """Return the softmax of the scores; zeros where a query sees no key."""
    s = ops.scores(q, k, scale=scale, softcap=softcap)
    hidden = None
    if lengths is not None or left >= 0 or right >= 0:
        keys = k.shape[2]
        hidden = hidden_keys(q, lengths, starts, keys=keys, left=left, right=right, offset=offset)
    if mask is not None and mask.dtype == BOOL:
        unseen = pw.logical_not(mask)
        hidden = unseen if hidden is None else pw.logical_or(hidden, unseen)
    elif mask is not None:
        s = pw.add(s, mask)
    if hidden is not None:
        s = pw.where(hidden, -math.inf, s)
    extra = None if sink is None else layout.reshape(sink, shape=(1, -1, 1, 1))
    if extra is not None:
        column = pw.add(pw.mul(red.sum_(pw.where(pw.isnan(s), s, 0.0), axes=(3,), keepdims=True), 0.0), extra)
        p = normalize.softmax(layout.concat(s, column, axis=3), axis=3)
        return layout.slice_(p, starts=(0,), stops=(k.shape[2],), steps=(1,), axes=(3,))
    p = normalize.softmax(s, axis=3)
    if hidden is None and mask is None:
        return p
    return pw.where(pw.equal(red.max_(s, axes=(3,), keepdims=True), -math.inf), 0.0, p)


@expands(ops.hidden_keys)
def hidden_keys(
    q: Any, lengths: Any = None, starts: Any = None, *, keys: DimLike, left: int = -1, right: int = -1,
    offset: DimLike = 0,
) -> Any:  # fmt: skip
    """Compare the places of queries and keys."""

    def places(count: DimLike, axis: int) -> Any:
        ones = create.full_like(of_type(np.int64), shape=(count,), value=1)
        at = cumulative.cumsum(ones, axis=0, exclusive=True)
        return layout.reshape(at, shape=tuple(-1 if i == axis else 1 for i in range(4)))

    def whole(x: Any) -> Any:
        return layout.reshape(pw.cast(x, dtype="int64"), shape=(-1, 1, 1, 1))

    at, key = places(q.shape[2], 2), places(keys, 3)
    if starts is not None:
        at = pw.add(at, whole(starts))
    elif not isinstance(offset, int) or offset:
        size = create.size_of(create.full_like(of_type(np.int64), shape=(offset,), value=0))
        at = pw.add(at, offset if isinstance(offset, int) else size)
    found = None
    if lengths is not None:
        found = pw.greater_equal(key, whole(lengths))
    for limit, low, high in ((left, key, at), (right, at, key)):
        if limit >= 0:
            far = pw.greater(pw.sub(high, low), limit)
            found = far if found is None else pw.logical_or(found, far)
    return pw.less(pw.add(at, key), 0) if found is None else found


@expands(ops.rotary_embedding)
def rotated(x: Any, cos: Any, sin: Any, *, interleaved: bool = False) -> Any:
    """Turn each pair of elements by its angle; what has no angle stays."""
    e, r, axis = x.shape[-1], cos.shape[-1], x.ndim - 1

    def part(start: DimLike, stop: DimLike, step: int = 1) -> Any:
        return layout.slice_(x, starts=(start,), stops=(stop,), steps=(step,), axes=(axis,))

    a, b = (part(0, 2 * r, 2), part(1, 2 * r, 2)) if interleaved else (part(0, r), part(r, 2 * r))
    first = pw.sub(pw.mul(a, cos), pw.mul(b, sin))
    second = pw.add(pw.mul(a, sin), pw.mul(b, cos))
    if interleaved:
        pairs = layout.concat(*(layout.unsqueeze(v, axes=(x.ndim,)) for v in (first, second)), axis=x.ndim)
        parts = [layout.reshape(pairs, shape=(*x.shape[:-1], 2 * r))]
    else:
        parts = [first, second]
    if e != 2 * r:
        parts.append(part(2 * r, e))
    return layout.concat(*parts, axis=axis) if len(parts) > 1 else parts[0]
