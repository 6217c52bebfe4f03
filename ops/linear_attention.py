"""Linear attention: a state of (key size, value size) a head, which every step decays, writes to and reads.

It is computed in chunks: between chunks the state is carried, inside one everything is a product of matrices.

Axes: B batch, H heads of the queries, K heads of keys and values, L steps, E, V sizes of a head, T steps of a chunk.
Source: ONNX LinearAttention-27; Katharopoulos et al. 2020; Yang et al. 2024 (the WY form of the delta rule).
"""

from __future__ import annotations

import functools
from typing import Any

from . import layout, pointwise as pw
from .attention import checked_heads
from .create import full_like
from .cumulative import cumsum
from .errors import OpError
from .matmul import inverse, matmul, swapped
from .op import op
from .types import HALF, TensorType

RULES = ("linear", "gated", "delta", "gated_delta")
CHUNKS = {"scalar": 64, "vector": 16}
"""Steps that linear attention takes at once, by the kind of decay: one of each key channel needs a matrix a channel."""


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

    Shapes: (B, H, L, E), (B, K, L, E), (B, K, L, V), (B, K, E, V) or None, (B, K, L, E or 1) or None,
    (B, K or 1, L, 1) or None -> (B, H, L, V), (B, K, E, V).

    Raises:
        OpError: on another rule, or one without what it wants.
    """
    checked_heads("linear_attention", q, k)
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
