"""Scaled dot-product attention and rotary embedding.

`attention` carries every form that the standard has: grouped key heads, masks, windows, caches, a soft cap and a
sink. Its gradient recomputes the weights, so that nothing of the size of the scores is kept.

Axes: B batch, H heads of the queries, K heads of keys and values (H = K * group), L queries, S keys, E, V sizes
of a head.
Source: ONNX Attention-25, RotaryEmbedding-23; Vaswani et al. 2017; Ainslie et al. 2023; Dao et al. 2022;
Su et al. 2021.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import layout, pointwise as pw, reduce as red
from .dims import DimLike, show
from .errors import ShapeError
from .matmul import matmul, swapped
from .op import op
from .types import TensorType, is_float

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


def checked_heads(name: str, q: TensorType, k: TensorType) -> None:
    """Check that queries and keys have four axes, and heads and sizes that fit.

    Raises:
        ShapeError: if they do not.
    """
    if q.ndim != 4 or k.ndim != 4:
        raise ShapeError(f"{name}: wants (B, H, L, E) and (B, K, S, E), found {show(q.shape)} and {show(k.shape)}")
    heads, shared, e, f = q.shape[1], k.shape[1], q.shape[3], k.shape[3]
    if isinstance(heads, int) and isinstance(shared, int) and (shared == 0 or heads % shared):
        raise ShapeError(f"{name}: {heads} query heads do not share {shared} key heads evenly")
    if isinstance(e, int) and isinstance(f, int) and e != f:
        raise ShapeError(f"{name}: queries have {e} elements a head, keys {f}")


@op()
def attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    mask: TensorType | None = None,
    lengths: TensorType | None = None,
    starts: TensorType | None = None,
    sink: TensorType | None = None,
    *,
    scale: float,
    softcap: float = 0.0,
    left: int = -1,
    right: int = -1,
    offset: DimLike = 0,
) -> TensorType:
    """Return softmax(cap(scale q k^T) + mask) v; a query that sees no key gives zeros.

    Query i stands at place p = i + offset, or i + starts[b], and sees the keys from p - left to p + right (-1: all
    on that side; causal is right = 0), of which the first `lengths[b]` count.

    Args:
        q: queries.
        k: keys; each of their heads serves a group of consecutive query heads.
        v: values.
        mask: truth values (True is seen), or numbers added to the scores; broadcasts to (B, H, L, S).
        lengths: (B,), how many keys count.
        starts: (B,), where the first query stands.
        sink: (H,), one more score a head, which takes its part of the sum and has no value.
        scale: of the scores.
        softcap: cap(s) = softcap tanh(s / softcap); 0 for none.
        left: how many keys before a query it sees.
        right: how many keys after it.
        offset: where the first query stands, without `starts`.

    Shapes: (B, H, L, E), (B, K, S, E), (B, K, S, V) -> (B, H, L, V).

    Raises:
        ShapeError: if heads or sizes do not fit.
    """
    checked_heads("attention", q, k)
    if isinstance(k.shape[2], int) and isinstance(v.shape[2], int) and k.shape[2] != v.shape[2]:
        raise ShapeError(f"attention: {k.shape[2]} keys, {v.shape[2]} values")
    return TensorType(q.dtype, (*q.shape[:3], v.shape[3]))


@op()
def attention_weights(
    q: TensorType,
    k: TensorType,
    mask: TensorType | None = None,
    lengths: TensorType | None = None,
    starts: TensorType | None = None,
    sink: TensorType | None = None,
    *,
    scale: float,
    softcap: float = 0.0,
    left: int = -1,
    right: int = -1,
    offset: DimLike = 0,
) -> TensorType:
    """Return what `attention` weighs the values with; its arguments.

    Shapes: (B, H, L, E), (B, K, S, E) -> (B, H, L, S).
    """
    checked_heads("attention_weights", q, k)
    return TensorType(q.dtype, (*q.shape[:3], k.shape[2]))


@op(dtype="bool")
def hidden_keys(
    q: TensorType,
    lengths: TensorType | None = None,
    starts: TensorType | None = None,
    *,
    keys: DimLike,
    left: int = -1,
    right: int = -1,
    offset: DimLike = 0,
) -> TensorType:
    """Return where the window and the lengths of `attention` let a query not see a key.

    Shapes: (B, H, L, E) -> (B, 1, L, keys).
    """
    return TensorType(np.dtype(bool), (q.shape[0], 1, q.shape[2], keys))


def grouped(x: Any, like: Any) -> Any:
    """Lay the query heads that share a key head of `like` under each other: (B, H, L, E) -> (B, K, H / K * L, E)."""
    b, h, n, e = x.shape
    shared = like.shape[1]
    return x if h == shared else layout.reshape(x, shape=(b, shared, h // shared * n, e))


def scores(q: Any, k: Any, *, scale: float, softcap: float = 0.0) -> Any:
    """Return cap(scale q k^T), (B, H, L, S)."""
    s = pw.mul(matmul(grouped(q, k), swapped(k)), scale)
    s = layout.reshape(s, shape=(*q.shape[:3], k.shape[2]))
    return s if softcap == 0 else pw.mul(pw.tanh(pw.div(s, softcap)), softcap)


def _for_mask(ds: Callable[[], Any], mask: Any) -> Callable[[], Any] | None:
    if mask is None or not is_float(mask.dtype):
        return None
    return lambda: pw.cast(pw.sum_to_like(ds(), mask), dtype=str(mask.dtype))


def _chained(
    ds: Callable[[], Any], total: Callable[[], Any], p: Callable[[], Any],
    q: Any, k: Any, mask: Any, sink: Any, scale: float, softcap: float,
) -> tuple[Any, ...]:  # fmt: skip
    """Return the entries of q, k, mask and sink from the gradient by the scores as they enter the softmax.

    That gradient is ds = p (dp - total), with the weights p and total = sum(p dp) over the keys.
    """

    @functools.cache
    def raw() -> Any:
        g = pw.mul(ds(), scale)
        if softcap:
            c = pw.div(scores(q, k, scale=scale, softcap=softcap), softcap)
            g = pw.mul(g, pw.sub(1.0, pw.mul(c, c)))
        return grouped(g, k)

    def for_q() -> Any:
        return layout.reshape(matmul(raw(), k), shape=tuple(q.shape))

    def for_sink() -> Any:
        left = pw.sub(1.0, red.sum_(p(), axes=(3,), keepdims=True))
        return pw.neg(red.sum_(pw.mul(left, total()), axes=(0, 2, 3)))

    return (
        for_q,
        lambda: matmul(swapped(raw()), grouped(q, k)),
        _for_mask(ds, mask),
        None if sink is None else for_sink,
    )


@attention_weights.defvjp
def _attention_weights_vjp(
    g: Any, y: Any, q: Any, k: Any, mask: Any = None, lengths: Any = None, starts: Any = None, sink: Any = None,
    *, scale: float, softcap: float = 0.0, **window: Any,
) -> Entries:  # fmt: skip
    @functools.cache
    def total() -> Any:
        return red.sum_(pw.mul(g, y), axes=(3,), keepdims=True)

    @functools.cache
    def ds() -> Any:
        return pw.mul(y, pw.sub(g, total()))

    for_q, for_k, for_mask, for_sink = _chained(ds, total, lambda: y, q, k, mask, sink, scale, softcap)
    return for_q, for_k, for_mask, None, None, for_sink


@op()
def attention_grad(
    g: TensorType,
    y: TensorType,
    q: TensorType,
    k: TensorType,
    v: TensorType,
    mask: TensorType | None = None,
    lengths: TensorType | None = None,
    starts: TensorType | None = None,
    sink: TensorType | None = None,
    *,
    scale: float,
    softcap: float = 0.0,
    left: int = -1,
    right: int = -1,
    offset: DimLike = 0,
) -> tuple[TensorType, ...]:
    """Return the gradients of `attention` in q, k, v, then in a mask of numbers and in the sink where there are any.

    Shapes: those of g and of the result y are (B, H, L, V); the rest as `attention`.
    """
    return q, k, v, *((mask,) if _added(mask) else ()), *(() if sink is None else (sink,))


def _added(mask: Any) -> bool:
    """Whether a mask is added to the scores, so that it has a gradient."""
    return mask is not None and is_float(mask.dtype)


@attention_grad.compose
def _attention_grad(
    g: Any, y: Any, q: Any, k: Any, v: Any, mask: Any = None, lengths: Any = None, starts: Any = None,
    sink: Any = None, *, scale: float, softcap: float = 0.0, **window: Any,
) -> tuple[Any, ...]:  # fmt: skip
    p = attention_weights(q, k, mask, lengths, starts, sink, scale=scale, softcap=softcap, **window)
    total = red.sum_(pw.mul(g, y), axes=(3,), keepdims=True)
    dp = layout.reshape(matmul(grouped(g, k), swapped(v)), shape=(*q.shape[:3], k.shape[2]))
    ds = pw.mul(p, pw.sub(dp, total))
    for_q, for_k, *rest = _chained(lambda: ds, lambda: total, lambda: p, q, k, mask, sink, scale, softcap)
    dv = matmul(swapped(grouped(p, k)), grouped(g, k))
    return for_q(), for_k(), dv, *(f() for f in rest if f is not None)


@attention.defvjp
def _attention_vjp(
    g: Any, y: Any, q: Any, k: Any, v: Any, mask: Any = None, lengths: Any = None, starts: Any = None,
    sink: Any = None, **attrs: Any,
) -> Entries:  # fmt: skip
    @functools.cache
    def gradients() -> Any:
        return attention_grad(g, y, q, k, v, mask, lengths, starts, sink, **attrs)

    return (
        lambda: gradients()[0],
        lambda: gradients()[1],
        lambda: gradients()[2],
        (lambda: gradients()[3]) if _added(mask) else None,
        None,
        None,
        None if sink is None else lambda: gradients()[-1],
    )


@op()
def rotary_embedding(x: TensorType, cos: TensorType, sin: TensorType, *, interleaved: bool = False) -> TensorType:
    """Turn pairs of elements of the last axis by angles: (a, b) -> (a cos - b sin, a sin + b cos).

    A pair is an element of the first half with that of the second, or two neighbours (`interleaved`). With R angles the
    first 2 R elements turn and the others stay.

    Shapes: (*A, E), two that broadcast to (*A, R) -> (*A, E).

    Raises:
        ShapeError: if there are more angles than pairs.
    """
    e, r = x.shape[-1], cos.shape[-1]
    if isinstance(e, int) and isinstance(r, int) and 2 * r > e:
        raise ShapeError(f"rotary_embedding: {r} angles want at least {2 * r} elements, found {show(x.shape)}")
    return TensorType(x.dtype, x.shape)


def _pairs(x: Any, r: DimLike, interleaved: bool) -> tuple[Any, Any]:
    """Return the first and the second element of each pair."""
    axis = x.ndim - 1
    starts, stops, step = ((0, 1), (2 * r, 2 * r), 2) if interleaved else ((0, r), (r, 2 * r), 1)
    a, b = (
        layout.slice_(x, starts=(i,), stops=(j,), steps=(step,), axes=(axis,))
        for i, j in zip(starts, stops, strict=True)
    )
    return a, b


@rotary_embedding.defvjp
def _rotary_embedding_vjp(g: Any, y: Any, x: Any, cos: Any, sin: Any, *, interleaved: bool = False) -> Entries:
    @functools.cache
    def pairs() -> tuple[Any, ...]:
        r = cos.shape[-1]
        return *_pairs(g, r, interleaved), *_pairs(x, r, interleaved)

    def for_cos() -> Any:
        ga, gb, a, b = pairs()
        return pw.sum_to_like(pw.add(pw.mul(ga, a), pw.mul(gb, b)), cos)

    def for_sin() -> Any:
        ga, gb, a, b = pairs()
        return pw.sum_to_like(pw.sub(pw.mul(gb, a), pw.mul(ga, b)), sin)

    return lambda: rotary_embedding(g, cos, pw.neg(sin), interleaved=interleaved), for_cos, for_sin
