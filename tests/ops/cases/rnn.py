"""Recurrent layers: the rows of the op table, by the standard's equations, a step and an entry at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.rnn import gru, lstm, rnn

from ..case import OpCase, rand

ACT = {
    "Sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Relu": lambda x, a, b: x * (x > 0),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: np.where(x < 0, a * x, x),
    "ThresholdedRelu": lambda x, a, b: np.where(x > a, x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.minimum(1, np.maximum(0, a * x + b)),
    "Elu": lambda x, a, b: np.where(x < 0, a * (np.exp(x) - 1), x),
    "Softsign": lambda x, a, b: x / (1 + abs(x)),
    "Softplus": lambda x, a, b: np.log1p(np.exp(x)),
}
S, T = ("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0)
BACK = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


def swept(x: Any, lengths: Any, direction: str, hidden: int, starts: list[Any], step: Any) -> tuple[np.ndarray, ...]:
    """Run `step(d, x_t, *states)` over each entry's own steps."""
    steps, batch, _ = x.shape
    ways = BACK[direction]
    y = np.zeros((steps, len(ways), batch, hidden))
    last = [np.zeros((len(ways), batch, hidden)) if s is None else s.copy() for s in starts]
    for d, back in enumerate(ways):
        for n in range(batch):
            own = range(steps if lengths is None else lengths[n])
            for t in reversed(own) if back else own:
                for state, new in zip(last, step(d, x[t, n], *(s[d, n] for s in last)), strict=True):
                    state[d, n] = new
                y[t, d, n] = last[0][d, n]
    return (y, *last)


def act(activation: Any, x: np.ndarray, clip: float | None) -> np.ndarray:
    name, alpha, beta = activation
    return ACT[name](x if clip is None else np.clip(x, -clip, clip), alpha, beta)


def rnn_steps(direction: str, cells: Any, clip: Any = None) -> Any:
    def reference(x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any) -> Any:
        k = r.shape[2]
        b = np.zeros((len(w), 2 * k)) if b is None else b

        def step(d: int, xt: Any, h: Any) -> Any:
            return (act(cells[d][0], w[d] @ xt + r[d] @ h + b[d, :k] + b[d, k:], clip),)

        return swept(x, lengths, direction, k, [h0], step)

    return reference


def gru_steps(direction: str, cells: Any, clip: Any = None, linear_before_reset: bool = False) -> Any:
    def reference(x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any) -> Any:
        k = r.shape[2]
        b = np.zeros((len(w), 6 * k)) if b is None else b

        def step(d: int, xt: Any, h: Any) -> Any:
            f, g = cells[d]
            wz, wr, wn = np.split(w[d] @ xt + b[d, : 3 * k], 3)
            rz, rr, rn = np.split(r[d], 3)
            bz, br, bn = np.split(b[d, 3 * k :], 3)
            z, reset = act(f, wz + rz @ h + bz, clip), act(f, wr + rr @ h + br, clip)
            inner = reset * (rn @ h + bn) if linear_before_reset else rn @ (reset * h) + bn
            return ((1 - z) * act(g, wn + inner, clip) + z * h,)

        return swept(x, lengths, direction, k, [h0], step)

    return reference


def lstm_steps(direction: str, cells: Any, clip: Any = None, input_forget: bool = False) -> Any:
    def reference(x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, c0: Any, p: Any) -> Any:
        k = r.shape[2]
        b = np.zeros((len(w), 8 * k)) if b is None else b
        p = np.zeros((len(w), 3 * k)) if p is None else p

        def step(d: int, xt: Any, h: Any, c: Any) -> Any:
            f, g, last = cells[d]
            i, o, forget, n = np.split(w[d] @ xt + r[d] @ h + b[d, : 4 * k] + b[d, 4 * k :], 4)
            pi, po, pf = np.split(p[d], 3)
            i = act(f, i + pi * c, clip)
            forget = 1 - i if input_forget else act(f, forget + pf * c, clip)
            c = forget * c + i * act(g, n, clip)
            return act(f, o + po * c, clip) * act(last, c, None), c

        return swept(x, lengths, direction, k, [h0, c0], step)

    return reference


def row(
    op: Any,
    gates: int,
    reference: Any,
    *,
    lengths: Any = None,
    full: bool = True,
    order: int = 2,
    **attrs: Any,
) -> OpCase:
    ways = len(BACK[attrs["direction"]])
    x, w, r = rand(3, 2, 2), rand(ways, gates * 2, 2, seed=1), rand(ways, gates * 2, 2, seed=2)
    b = rand(ways, 4 * gates, seed=3) if full else None
    states = [rand(ways, 2, 2, seed=4 + i) if full else None for i in range(2 if gates == 4 else 1)]
    rest = [rand(ways, 6, seed=6) if full else None] if gates == 4 else []
    name = (
        f"{op.name}-{attrs['direction']}-{'full' if full else 'bare'}-{'' if lengths is None else lengths}"
        + "-".join(f"{k}={v}" for k, v in attrs.items() if k not in ("direction", "cells"))
        + "-".join(a[0] for a in attrs["cells"][0])
    )
    return OpCase(op, (x, w, r, b, lengths, *states, *rest), reference(**attrs), attrs, order=order, name=name)


L = np.array([3, 1], np.int32)
LONG = np.array([3, 3], np.int32)

CASES = [
    row(rnn, 1, rnn_steps, direction="forward", cells=((T,),)),
    row(rnn, 1, rnn_steps, direction="reverse", cells=((S,),), full=False),
    row(rnn, 1, rnn_steps, direction="bidirectional", cells=((T,), (S,)), lengths=L),
    *(
        row(rnn, 1, rnn_steps, direction="forward", cells=(((n, 0.4, 0.3),),), order=1)
        for n in sorted(ACT)
        if n not in ("Sigmoid", "Tanh")
    ),
    row(gru, 3, gru_steps, direction="forward", cells=((S, T),)),
    row(gru, 3, gru_steps, direction="reverse", cells=((S, T),), linear_before_reset=True),
    row(gru, 3, gru_steps, direction="bidirectional", cells=((S, T),) * 2, lengths=L, linear_before_reset=True),
    row(gru, 3, gru_steps, direction="forward", cells=((S, T),), full=False, clip=0.5),
    row(lstm, 4, lstm_steps, direction="forward", cells=((S, T, T),)),
    row(lstm, 4, lstm_steps, direction="reverse", cells=((S, T, T),), full=False, input_forget=True),
    row(lstm, 4, lstm_steps, direction="bidirectional", cells=((S, T, T),) * 2, lengths=L),
    row(lstm, 4, lstm_steps, direction="reverse", cells=((S, T, T),), lengths=LONG, clip=0.7),
]
