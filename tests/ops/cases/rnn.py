"""Recurrent layers: the rows of the op table, by the standard's equations, a step and an entry at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.rnn import gru, lstm, rnn
from onnxgrad.ops.rnn_grad import gru_grad, lstm_grad, rnn_grad
from onnxgrad.ops.rnn_train import gru_train, lstm_train
from onnxgrad.ops.rnn_walk import cell_walk, state_walk

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


def walked(gy: Any, factor: Any, kept: Any, r: Any, last: Any) -> tuple[np.ndarray, ...]:
    """The walk back through states, by its equations."""
    gates, states = np.zeros_like(factor), np.zeros((*factor.shape[:2], r.shape[1]))
    for t in reversed(range(len(factor))):
        states[t] = last if gy is None else last + gy[t]
        gates[t] = np.tile(states[t], factor.shape[2] // r.shape[1]) * factor[t]
        last = gates[t] @ r + (0 if kept is None else kept[t] * states[t])
    return gates, states, last


def walked_cells(
    gy: Any, factor: Any, into: Any, through: Any, kept: Any, r: Any, last: Any, cell: Any
) -> tuple[np.ndarray, ...]:
    """The walk back through states and cells, by its equations."""
    gates = np.zeros_like(factor)
    for t in reversed(range(len(factor))):
        state = last if gy is None else last + gy[t]
        cell = cell + into[t] * state
        gates[t] = np.concatenate([cell, state, cell, cell], 1) * factor[t]
        last, cell = gates[t] @ r + (0 if kept is None else kept[t] * state), cell * through[t]
    return gates, last, cell


def walk_row(op: Any, reference: Any, gates: int, full: bool, states: int, inner: int) -> OpCase:
    gy = rand(3, 2, 2) if full else None
    kept = rand(3, 2, 1 if inner else 2, seed=1) if full else None
    factor, r = rand(3, 2, 2 * gates, seed=2), rand(2 * gates, 2, seed=3)
    more = [rand(3, 2, 2, seed=4 + i) for i in range(inner)]
    last = [rand(2, 2, seed=6 + i) for i in range(states)]
    name = f"{op.name}-{gates}-{'full' if full else 'bare'}"
    return OpCase(op, (gy, factor, *more, kept, r, *last), reference, {}, order=2, name=name)


def train_row(op: Any, gates: int, reference: Any, direction: str, cells: Any, lengths: Any, **more: Any) -> OpCase:
    """A row of a layer that keeps its gates: of them all but what follows from the layer's results by their equations.

    The weights of the state are zero, so that each step stands alone.
    """
    ways = len(BACK[direction])
    x, w, b = rand(3, 2, 2), rand(ways, gates * 2, 2, seed=1), rand(ways, 4 * gates, seed=3)
    r = np.zeros((ways, gates * 2, 2))
    h0, c0 = rand(ways, 2, 2, seed=4), rand(ways, 2, 2, seed=5)
    attrs = {"direction": direction, "cells": cells, **more}
    layer = reference(**attrs)

    def expected(x: Any, w: Any, r: Any, b: Any, lengths: Any, *states: Any) -> tuple[np.ndarray, ...]:
        results = layer(x, w, r, b, lengths, *states)
        projected = np.einsum("tbi,dgi->tdbg", x, w)
        own, inner = (v[:, None] for v in np.split(b, 2, axis=1))
        if gates == 3:
            z, reset, n = np.split(projected + own, 3, axis=3)
            bz, br, bn = np.split(inner, 3, axis=2)
            z, reset = act(cells[0][0], z + bz, None), act(cells[0][0], reset + br, None)
            linear = more.get("linear_before_reset")
            n = act(cells[0][1], n + (reset * bn if linear else bn), None)
            kept = [z, reset, n, *([np.broadcast_to(bn, n.shape)] if linear else [])]
            return (*results, np.concatenate(kept, 3))
        i, o, forget, n = np.split(projected + own + inner, 4, axis=3)
        i, o, forget = (act(cells[0][0], v, None) for v in (i, o, forget))
        n = act(cells[0][1], n, None)
        cell = np.zeros_like(n)
        for d, back in enumerate(BACK[direction]):
            for entry in range(2):
                c = states[1][d, entry]
                order = range(3) if lengths is None else range(lengths[entry])
                for t in reversed(order) if back else order:
                    c = cell[t, d, entry] = forget[t, d, entry] * c + i[t, d, entry] * n[t, d, entry]
                for t in range(order.stop, 3):
                    cell[t, d, entry] = forget[t, d, entry] * c + i[t, d, entry] * n[t, d, entry]
        return (*results, np.concatenate([i, o, forget, n], 3), cell)

    args = (x, w, r, b, lengths, h0, *((c0, None) if gates == 4 else ()))
    name = f"{op.name}-{direction}-{'' if lengths is None else lengths}" + "".join(f"-{k}" for k in more)
    return OpCase(op, args, expected, attrs, order=None, name=name)


def differences(steps: Any, arrays: list[Any], at: int, weights: list[Any]) -> np.ndarray:
    """Return the gradient of a weighted sum of results by one array, by central differences."""
    step, grad = 1e-6, np.zeros(arrays[at].shape)
    for place in np.ndindex(*grad.shape):
        values = []
        for sign in (1, -1):
            moved = [a.copy() if i == at else a for i, a in enumerate(arrays)]
            moved[at][place] += sign * step
            values.append(sum((g * r).sum() for g, r in zip(weights, steps(*moved), strict=True) if g is not None))
        grad[place] = (values[0] - values[1]) / (2 * step)
    return grad


def grad_row(op: Any, steps: Any, gates: int, cells: Any, **more: Any) -> OpCase:
    """A row of a layer's gradient; the input weights are the identity, so that x is what they give."""
    states = 2 if gates == 4 else 1
    attrs = {"direction": "forward", "cells": cells, **more}
    forward = steps(**attrs)
    x, r, b = rand(3, 2, 2 * gates), rand(1, 2 * gates, 2, seed=1), rand(1, 4 * gates, seed=2)
    w = np.eye(2 * gates)[None]
    starts = [rand(1, 2, 2, seed=3 + i) for i in range(states)]
    rest = [rand(1, 6, seed=6)] if gates == 4 else []
    inputs = [x, w, r, b, None, *starts, *rest]
    kept = {1: 0, 3: 1, 4: 2}[gates]
    y = forward(*inputs)[0]
    gs = [rand(3, 1, 2, 2, seed=7), *(rand(1, 2, 2, seed=8 + i) for i in range(states))]

    def reference(*args: Any) -> tuple[np.ndarray, ...]:
        given, arrays = list(args[: 1 + states]), list(args[2 + states : len(args) - kept])

        def by(at: int) -> np.ndarray:
            return differences(forward, arrays, at, given)

        found = [by(0)[None], *(by(5 + i) for i in range(states)), *([by(7)] if rest else [])]
        if op is gru_grad:
            before = np.concatenate([starts[0], y[:-1, 0]])
            reset = act(S, x[..., 2:4] + before @ r[0, 2:4].T + b[0, 2:4] + b[0, 8:10], None)
            linear = more.get("linear_before_reset")
            factor = np.concatenate([np.ones((3, 2, 4)), reset], 2)
            found.append(found[0] * factor if linear else (reset * before)[None])
        return tuple(found)

    name = op.name + "".join(f"-{k}" for k in more)
    return OpCase(op, (*gs, y, *inputs, *(None,) * kept), reference, attrs, order=1, tol=1e-7, name=name)


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
    *(walk_row(state_walk, walked, gates, full, 1, 0) for gates in (1, 3) for full in (False, True)),
    *(
        train_row(gru_train, 3, gru_steps, way, ((S, T),) * len(BACK[way]), lengths, linear_before_reset=linear)
        for way, lengths in (("forward", None), ("bidirectional", L))
        for linear in (False, True)
    ),
    *(
        train_row(lstm_train, 4, lstm_steps, way, ((S, T, T),) * len(BACK[way]), lengths)
        for way, lengths in (("reverse", None), ("bidirectional", L))
    ),
    grad_row(rnn_grad, rnn_steps, 1, ((T,),)),
    grad_row(gru_grad, gru_steps, 3, ((S, T),)),
    grad_row(gru_grad, gru_steps, 3, ((S, T),), linear_before_reset=True),
    grad_row(lstm_grad, lstm_steps, 4, ((S, T, T),)),
    grad_row(lstm_grad, lstm_steps, 4, ((S, T, T),), input_forget=True),
    *(walk_row(cell_walk, walked_cells, 4, full, 2, 2) for full in (False, True)),
]
