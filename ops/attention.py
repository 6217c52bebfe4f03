"""Scaled dot-product attention, rotary embedding and linear attention.

`attention` carries every form that the standard has: grouped key heads, masks, windows, caches, a soft cap and a sink. Its
gradient recomputes the weights, so that nothing of the size of the scores is kept.

Axes: B batch, H heads of the queries, K heads of keys and values (H = K * group), L queries, S keys, E, V sizes of a head.
Source: ONNX Attention-25, RotaryEmbedding-23, LinearAttention-27; Vaswani et al. 2017; Su et al. 2021; Yang et al. 2024.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import layout
from . import pointwise as pw
from . import reduce as red
from .create import full_like
from .cumulative import cumsum
from .dims import DimLike, show
from .errors import OpError, ShapeError
from .matmul import inverse, matmul, swapped
from .op import op
from .types import HALF, TensorType, is_float

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]

RULES = ("linear", "gated", "delta", "gated_delta")
CHUNKS = {"scalar": 64, "vector": 16}
"""Steps that linear attention takes at once, by the kind of decay: one of each key channel needs a matrix a channel."""


def _checked(name: str, q: TensorType, k: TensorType) -> None:
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

    Query i stands at place p = i + offset, or i + starts[b], and sees the keys from p - left to p + right (-1: all on that
    side; causal is right = 0), of which the first `lengths[b]` count.

    Args:
        q, k, v: queries, keys, values; each key head serves a group of consecutive query heads.
        mask: truth values (True is seen), or numbers added to the scores; broadcasts to (B, H, L, S).
        lengths, starts: (B,), integers.
        sink: (H,), one more score a head, which takes its part of the sum and has no value.
        scale, softcap: of the scores; cap(s) = softcap tanh(s / softcap) unless softcap is 0.
        left, right, offset: the window.

    Shapes: (B, H, L, E), (B, K, S, E), (B, K, S, V) -> (B, H, L, V).

    Raises:
        ShapeError: if heads or sizes do not fit.
    """
    _checked("attention", q, k)
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
    _checked("attention_weights", q, k)
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

    Args:
        ds: that gradient, p (dp - sum(p dp)).
        total: sum(p dp), one a query.
        p: the weights.
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


@attention.defvjp
def _attention_vjp(
    g: Any, y: Any, q: Any, k: Any, v: Any, mask: Any = None, lengths: Any = None, starts: Any = None,
    sink: Any = None, *, scale: float, softcap: float = 0.0, **window: Any,
) -> Entries:  # fmt: skip
    @functools.cache
    def p() -> Any:
        return attention_weights(q, k, mask, lengths, starts, sink, scale=scale, softcap=softcap, **window)

    @functools.cache
    def total() -> Any:
        return red.sum_(pw.mul(g, y), axes=(3,), keepdims=True)

    @functools.cache
    def ds() -> Any:
        dp = layout.reshape(matmul(grouped(g, k), swapped(v)), shape=(*q.shape[:3], k.shape[2]))
        return pw.mul(p(), pw.sub(dp, total()))

    for_q, for_k, for_mask, for_sink = _chained(ds, total, p, q, k, mask, sink, scale, softcap)
    return for_q, for_k, lambda: matmul(swapped(grouped(p(), k)), grouped(g, k)), for_mask, None, None, for_sink


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


@op()
def linear_attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    state: TensorType | None = None,
    decay: TensorType | None = None,
    beta: TensorType | None = None,
    *,
    scale: float,
    rule: str,
) -> tuple[TensorType, TensorType]:
    """Return scale q_t S_t at every step, and the last state, of S_t = e^decay_t S_{t-1} + k_t u_t^T.

    Rules: `linear` has no decay and u = v; `gated` has decay; `delta` writes u = beta (v - S^T k), S the decayed state
    before; `gated_delta` has both.

    Shapes: (B, H, L, E), (B, K, L, E), (B, K, L, V), (B, K, E, V) or None, (B, K, L, E or 1) or None, (B, K or 1, L, 1) or
    None -> (B, H, L, V), (B, K, E, V).

    Raises:
        OpError: on another rule, or one without what it wants.
    """
    _checked("linear_attention", q, k)
    _ruled(rule, decay, beta)
    kept = q.dtype if state is None else state.dtype
    return (
        TensorType(q.dtype, (*q.shape[:3], v.shape[3])),
        TensorType(kept, (k.shape[0], k.shape[1], k.shape[3], v.shape[3])),
    )


def _ruled(rule: str, decay: Any, beta: Any) -> None:
    if rule not in RULES:
        raise OpError(f"linear_attention: rule {rule!r}, wanted one of {RULES}")
    for name, value, wanted in (("decay", decay, "gated" in rule), ("beta", beta, "delta" in rule)):
        if (value is not None) != wanted:
            raise OpError(f"linear_attention: rule {rule!r} {'wants' if wanted else 'takes no'} {name}")


@linear_attention.compose
def _linear_attention(
    q: Any, k: Any, v: Any, state: Any = None, decay: Any = None, beta: Any = None, *, scale: float, rule: str
) -> tuple[Any, Any]:
    """Walk over chunks of steps; inside one, what steps write is solved for at once (the WY form)."""
    _ruled(rule, decay, beta)
    narrow = str(q.dtype), str(q.dtype if state is None else state.dtype)
    q, k, v, state, decay, beta = (_wide(x) for x in (q, k, v, state, decay, beta))
    b, heads, steps, e = q.shape
    shared, width = k.shape[1], v.shape[3]
    group = heads // shared
    if state is None:
        state = full_like(k, shape=(b, shared, e, width), value=0.0)
    vector = decay is not None and not (isinstance(decay.shape[3], int) and decay.shape[3] == 1)
    size = CHUNKS["vector" if vector else "scalar"]
    q = layout.reshape(pw.mul(q, scale), shape=(b, shared, group, steps, e))
    outs = []
    for first in range(0, steps, size):
        cut = functools.partial(_cut, first=first, stop=min(first + size, steps))
        y, state = _chunk(cut(q), cut(k), cut(v), state, cut(decay), cut(beta))
        outs.append(y)
    if not outs:
        y = full_like(q, shape=(b, shared, group, 0, width), value=0.0)
    else:
        y = outs[0] if len(outs) == 1 else layout.concat(*outs, axis=3)
    y = layout.reshape(y, shape=(b, heads, steps, width))
    return pw.cast(y, dtype=narrow[0]), pw.cast(state, dtype=narrow[1])


def _wide(x: Any) -> Any:
    return pw.cast(x, dtype="float32") if x is not None and x.dtype in HALF else x


def _cut(x: Any, *, first: int, stop: int) -> Any:
    """Return some steps, which lie along the axis before the last."""
    if x is None or (first == 0 and stop == x.shape[x.ndim - 2]):
        return x
    return layout.slice_(x, starts=(first,), stops=(stop,), steps=(1,), axes=(x.ndim - 2,))


def _chunk(q: Any, k: Any, v: Any, state: Any, decay: Any, beta: Any) -> tuple[Any, Any]:
    """Return the outputs of some steps (B, K, group, T, V), q being (B, K, group, T, E), and the state after them."""
    b, shared, group, n, e = q.shape
    rows = layout.reshape(q, shape=(b, shared, group * n, e))
    if decay is None:
        among, reads = matmul(k, swapped(k)), matmul(rows, swapped(k))
        reads = layout.reshape(reads, shape=(b, shared, group, n, n))
        k_before, rows_before, k_after = k, rows, k
        kept = state
    else:
        total = cumsum(decay, axis=2)
        grown = pw.exp(total)
        k_before = pw.mul(k, grown)
        rows_before = layout.reshape(pw.mul(q, layout.unsqueeze(grown, axes=(2,))), shape=(b, shared, group * n, e))
        last = layout.slice_(total, starts=(n - 1,), stops=(n,), steps=(1,), axes=(2,))
        k_after = pw.mul(k, pw.exp(pw.sub(last, total)))
        kept = pw.mul(state, swapped(pw.exp(last)))
        among, reads = _decayed(q, k, total)
    u = v
    if beta is not None:
        seen = pw.sub(v, matmul(k_before, state))
        ties = pw.mul(layout.trilu(among, upper=False, k=-1), beta)
        ones = full_like(ties, shape=tuple(ties.shape), value=1.0)
        unit = layout.trilu(layout.trilu(ones, upper=True), upper=False)
        u = matmul(inverse(pw.add(unit, ties)), pw.mul(seen, beta))
    reads = layout.reshape(layout.trilu(reads, upper=False), shape=(b, shared, group * n, n))
    y = pw.add(matmul(rows_before, state), matmul(reads, u))
    y = layout.reshape(y, shape=(b, shared, group, n, v.shape[3]))
    return y, pw.add(kept, matmul(swapped(k_after), u))


def _decayed(q: Any, k: Any, total: Any) -> tuple[Any, Any]:
    """Return k_t k_s and q_t k_s, both times the decay from s to t, (B, K, T, T) and (B, K, group, T, T)."""
    b, shared, group, n, e = q.shape
    across = layout.transpose(total, perm=(0, 1, 3, 2))  # (B, K, E or 1, T)
    gap = pw.sub(layout.unsqueeze(across, axes=(4,)), layout.unsqueeze(across, axes=(3,)))
    # What lies above the diagonal is never used, and would overflow: make its gap 0 first.
    fade = pw.exp(layout.trilu(gap, upper=False))
    if isinstance(fade.shape[2], int) and fade.shape[2] == 1:
        fade = layout.squeeze(fade, axes=(2,))
        reads = matmul(layout.reshape(q, shape=(b, shared, group * n, e)), swapped(k))
        reads = layout.reshape(reads, shape=(b, shared, group, n, n))
        return pw.mul(matmul(k, swapped(k)), fade), pw.mul(reads, layout.unsqueeze(fade, axes=(2,)))
    # (B, K, T, E, T): the keys as each step sees them.
    keys = pw.mul(layout.transpose(fade, perm=(0, 1, 3, 2, 4)), layout.unsqueeze(swapped(k), axes=(2,)))
    among = layout.squeeze(matmul(layout.unsqueeze(k, axes=(3,)), keys), axes=(3,))
    reads = matmul(layout.transpose(q, perm=(0, 1, 3, 2, 4)), keys)
    return among, layout.transpose(reads, perm=(0, 1, 3, 2, 4))


INTEGERS = np.dtype(np.int64)


def positions(like: Any, count: DimLike) -> Any:
    """Return 0, 1, ... up to before `count`, integers, on the device of `like`."""
    ones = full_like(pw.cast(like, dtype=str(INTEGERS)), shape=(count,), value=1)
    return cumsum(ones, axis=0, exclusive=True)
