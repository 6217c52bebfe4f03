"""Linear attention: the rows of the op table, by the recurrence."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from onnxgrad.ops.linear_attention import linear_attention

from ..case import OpCase, rand


def recurrent(
    q: Any, k: Any, v: Any, state: Any = None, decay: Any = None, beta: Any = None, *, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the recurrence, a step, an entry and a head at a time."""
    b, heads, steps, e = q.shape
    shared, group = k.shape[1], heads // k.shape[1]
    s = np.zeros((b, shared, e, v.shape[3])) if state is None else state.copy()
    y = np.zeros((b, heads, steps, v.shape[3]))
    for n, t, h in itertools.product(range(b), range(steps), range(shared)):
        if decay is not None:
            s[n, h] = np.exp(decay[n, h, t])[:, None] * s[n, h]
        u = v[n, h, t]
        if beta is not None:
            u = beta[n, h % beta.shape[1], t] * (u - s[n, h].T @ k[n, h, t])
        s[n, h] += np.outer(k[n, h, t], u)
        for i in range(h * group, (h + 1) * group):
            y[n, i, t] = scale * q[n, i, t] @ s[n, h]
    return y, s


def linear_row(
    rule: str, width: int = 1, *, steps: int = 3, state: bool = True, betas: int = 2, order: int = 2
) -> OpCase:
    q, k, v = rand(2, 4, steps, 3), rand(2, 2, steps, 3, seed=1) / 4, rand(2, 2, steps, 2, seed=2)
    s = rand(2, 2, 3, 2, seed=3) if state else None
    decay = -abs(rand(2, 2, steps, width, seed=4)) if "gated" in rule else None
    beta = abs(rand(2, betas, steps, 1, seed=5)) / 2 if "delta" in rule else None
    return OpCase(
        linear_attention, (q, k, v, s, decay, beta), lambda *a: recurrent(*a, scale=0.6), {"scale": 0.6, "rule": rule},
        order=order, name=f"linear_attention-{rule}-{width}-{steps}",
    )  # fmt: skip


CASES = [
    linear_row("linear"),
    linear_row("linear", state=False),
    linear_row("gated"),
    linear_row("gated", 3),
    linear_row("delta", betas=1),
    linear_row("gated_delta"),
    linear_row("gated_delta", 3),
    linear_row("gated_delta", 3, steps=37, order=1),
    linear_row("gated_delta", steps=70, order=1),
    linear_row("delta", steps=70, order=1),
]
