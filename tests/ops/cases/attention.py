"""Attention: the rows of the op table, by the definition, one query at a time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from onnxgrad.ops.attention import (
    attention,
    attention_grad,
    attention_weights,
    hidden_keys,
    rotary_embedding,
)

from ..case import OpCase, rand


def bias_of(
    shape: tuple[int, ...], mask: Any, lengths: Any, starts: Any, left: int, right: int, offset: int
) -> np.ndarray:
    bias = np.zeros(shape)
    if mask is not None:
        bias = bias + (np.where(mask, 0, -np.inf) if mask.dtype == bool else mask)
    for b, _, i, j in itertools.product(*map(range, shape)):
        p = i + (offset if starts is None else starts[b])
        hidden = (left >= 0 and j < p - left) or (right >= 0 and j > p + right)
        if hidden or (lengths is not None and j >= lengths[b]):
            bias[b, :, i, j] = -np.inf
    return bias


def weights_of(
    q: Any, k: Any, mask: Any = None, lengths: Any = None, starts: Any = None, sink: Any = None, *,
    scale: float, softcap: float = 0.0, left: int = -1, right: int = -1, offset: int = 0,
) -> np.ndarray:  # fmt: skip
    group = q.shape[1] // k.shape[1]
    s = np.zeros((*q.shape[:3], k.shape[2]))
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        s[b, h] = scale * q[b, h] @ k[b, h // group].T
    if softcap:
        s = softcap * np.tanh(s / softcap)
    s = s + bias_of(s.shape, mask, lengths, starts, left, right, offset)
    e = np.exp(s)
    total = e.sum(-1, keepdims=True) + (0 if sink is None else np.exp(sink).reshape(1, -1, 1, 1))
    return e / np.where(total == 0, 1, total)


def attended(q: Any, k: Any, v: Any, *rest: Any, **attrs: Any) -> np.ndarray:
    p, group = weights_of(q, k, *rest, **attrs), q.shape[1] // k.shape[1]
    return np.stack([p[:, h] @ v[:, h // group] for h in range(q.shape[1])], axis=1)


def row(
    heads: int = 2,
    shared: int = 2,
    queries: int = 3,
    keys: int = 4,
    rest: tuple[Any, ...] = (),
    name: str = "",
    **attrs: Any,
) -> list[OpCase]:
    q, k, v = rand(2, heads, queries, 3), rand(2, shared, keys, 3, seed=1), rand(2, shared, keys, 2, seed=2)
    attrs = {"scale": 0.7, **attrs}
    return [
        OpCase(attention, (q, k, v, *rest), lambda *a: attended(*a, **attrs), attrs, name=f"attention-{name}"),
        OpCase(attention_weights, (q, k, *rest), lambda *a: weights_of(*a, **attrs), attrs, name=f"weights-{name}"),
    ]


SEEN = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
LENGTHS, STARTS = np.array([4, 2]), np.array([1, -2])


def grad_of(
    g: Any, y: Any, q: Any, k: Any, v: Any, mask: Any = None, *rest: Any, **attrs: Any
) -> tuple[np.ndarray, ...]:
    """Return the gradients by the chain rule on whole matrices, a head at a time."""
    p, group = weights_of(q, k, mask, *rest, **attrs), q.shape[1] // k.shape[1]
    scale, cap = attrs["scale"], attrs.get("softcap", 0.0)
    dq, dk, dv, ds = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape), np.zeros(p.shape)
    total = (g * y).sum(-1, keepdims=True)
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        at = b, h // group
        dv[at] += p[b, h].T @ g[b, h]
        ds[b, h] = p[b, h] * (g[b, h] @ v[at].T - total[b, h])
        slope = 1 - np.tanh(scale * q[b, h] @ k[at].T / cap) ** 2 if cap else 1.0
        dq[b, h] = scale * (ds[b, h] * slope) @ k[at]
        dk[at] += scale * (ds[b, h] * slope).T @ q[b, h]
    more = []
    if mask is not None and mask.dtype != bool:
        wide = (1,) * (4 - mask.ndim) + mask.shape
        more.append(ds.sum(tuple(i for i, n in enumerate(wide) if n == 1), keepdims=True).reshape(mask.shape))
    if len(rest) == 3:
        more.append(-((1 - p.sum(-1, keepdims=True)) * total).sum((0, 2, 3)))
    return dq, dk, dv, *more


def grad_row(heads: int, shared: int, rest: tuple[Any, ...], name: str, **attrs: Any) -> OpCase:
    attrs = {"scale": 0.7, **attrs}
    args = rand(2, heads, 3, 2, seed=8), rand(2, heads, 3, 2, seed=9), rand(2, heads, 3, 3)
    more = rand(2, shared, 4, 3, seed=1), rand(2, shared, 4, 2, seed=2)
    return OpCase(
        attention_grad, (*args, *more, *rest), lambda *a: grad_of(*a, **attrs), attrs, name=f"attention_grad-{name}",
    )  # fmt: skip


def hidden_row(*rest: Any, **attrs: Any) -> OpCase:
    def reference(q: Any, lengths: Any = None, starts: Any = None) -> np.ndarray:
        window = {"left": -1, "right": -1, "offset": 0, **attrs}
        return np.isinf(bias_of((2, 1, 3, 4), None, lengths, starts, **window))

    return OpCase(hidden_keys, (rand(2, 2, 3, 3), *rest), reference, {"keys": 4, **attrs}, order=0)


def turned(x: Any, cos: Any, sin: Any, *, interleaved: bool) -> np.ndarray:
    y, r = x.copy(), cos.shape[-1]
    cos, sin = (np.broadcast_to(v, (*x.shape[:-1], r)) for v in (cos, sin))
    for i in range(r):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + r)
        y[..., a] = x[..., a] * cos[..., i] - x[..., b] * sin[..., i]
        y[..., b] = x[..., a] * sin[..., i] + x[..., b] * cos[..., i]
    return y


def rotary_row(elements: int, angles: int, interleaved: bool) -> OpCase:
    args = rand(2, 3, 4, elements), rand(4, angles, seed=1), rand(2, 1, 4, angles, seed=2)
    return OpCase(
        rotary_embedding, args, lambda *a: turned(*a, interleaved=interleaved), {"interleaved": interleaved},
        name=f"rotary_embedding-{elements}-{angles}-{interleaved}",
    )  # fmt: skip


CASES = [
    *row(name="plain"),
    *row(4, 2, name="grouped", softcap=1.5),
    *row(4, 1, rest=(rand(2, 1, 3, 4, seed=3),), name="mask"),
    *row(rest=(rand(2, 3, 4, seed=3),), name="mask of heads", softcap=0.8),
    *row(rest=(SEEN,), name="truth"),
    *row(name="causal", right=0),
    *row(name="causal with a cache", right=0, offset=1, left=1),
    *row(name="window", left=1, right=1),
    *row(rest=(None, LENGTHS), name="lengths"),
    *row(4, 2, rest=(rand(4, seed=3), LENGTHS, STARTS), name="starts", right=0),
    *row(4, 2, rest=(SEEN, None, None, rand(4, seed=4)), name="sink", softcap=2.0),
    *row(keys=1, queries=1, name="single"),
    grad_row(2, 2, (), "plain"),
    grad_row(4, 2, (rand(4, 1, 4, seed=3), LENGTHS, None, rand(4, seed=4)), "grouped", softcap=1.5, right=1),
    grad_row(2, 1, (SEEN,), "truth", right=0, left=1, offset=1),
    hidden_row(right=0, offset=1),
    hidden_row(LENGTHS, STARTS, left=1, right=1),
    hidden_row(LENGTHS),
    rotary_row(6, 3, False),
    rotary_row(6, 3, True),
    rotary_row(7, 2, False),
    rotary_row(7, 2, True),
]
