"""Recurrent layers: one matrix product for the inputs of all steps, then a loop over time.

Axes: T steps, B batch, I input, H hidden, D directions, G gates times H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...op import namespace
from ...quantize import dynamic_fake_quantize
from ...rnn import BACKWARD, Activation, Cells, flipped, gru, lstm, rnn
from ...rnn_grad import gru_grad, lstm_grad, rnn_grad
from ...rnn_train import gru_train, lstm_train
from ...rnn_walk import cell_walk, state_walk
from ...types import Array

Function = Callable[[Array], Array]


def _function(xp: Any, activation: Activation, clip: float | None) -> Function:
    name, alpha, beta = activation

    def sigmoid(x: Array) -> Array:
        y = xp.tanh(x * 0.5)
        y *= 0.5
        y += 0.5
        return y

    functions: dict[str, Function] = {
        "Relu": lambda x: xp.maximum(x, 0),
        "Tanh": xp.tanh,
        "Sigmoid": sigmoid,
        "Affine": lambda x: alpha * x + beta,
        "LeakyRelu": lambda x: xp.where(x < 0, alpha * x, x),
        "ThresholdedRelu": lambda x: xp.where(x < alpha, x.dtype.type(0), x),
        "ScaledTanh": lambda x: alpha * xp.tanh(beta * x),
        "HardSigmoid": lambda x: xp.clip(alpha * x + beta, 0, 1),
        "Elu": lambda x: xp.where(x < 0, alpha * xp.expm1(xp.minimum(x, 0)), x),
        "Softsign": lambda x: x / (1 + xp.absolute(x)),
        "Softplus": lambda x: xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.absolute(x))),
    }
    f = functions[name]
    return f if clip is None else lambda x: f(xp.clip(x, -clip, clip))


class _Steps:
    """The inputs of one layer, and what its directions make of them; `widths` are those of what is kept beside."""

    def __init__(
        self, x: Array, r: Array, lengths: Array | None, direction: str, states: int, widths: Sequence[int] = ()
    ) -> None:
        self.xp = namespace(x)
        self.x, self.lengths = x, lengths
        self.steps, self.batch = x.shape[:2]
        if lengths is not None and self.xp is np and bool((lengths == self.steps).all()):
            self.lengths = None
        self.backward = BACKWARD[direction]
        hidden, directions = r.shape[2], len(self.backward)
        self.y = self.xp.empty((self.steps, directions, self.batch, hidden), x.dtype)
        self.last = [self.xp.empty((directions, self.batch, hidden), x.dtype) for _ in range(states)]
        self.kept = [self.xp.empty((self.steps, directions, self.batch, n), x.dtype) for n in widths]

    def initial(self, state: Array | None, d: int) -> Array:
        return self.xp.zeros(self.last[0].shape[1:], self.x.dtype) if state is None else state[d]

    def project(self, w: Array, bias: Array | None) -> Array:
        """Return x W^T + bias for all steps, (T, B, G)."""
        out = self.x.reshape(self.steps * self.batch, self.x.shape[2]) @ w.T
        if bias is not None:
            out += bias
        return out.reshape(self.steps, self.batch, w.shape[0])

    def _turned(self, x: Array) -> Array:
        if self.lengths is None:
            return x[::-1]
        rows = flipped(self.lengths, self.steps, self.batch)
        return x.reshape(self.steps * self.batch, *x.shape[2:])[rows].reshape(x.shape)

    def run(self, d: int, projected: Array, states: tuple[Array, ...], step: Callable[..., tuple[Array, ...]]) -> None:
        """Run one direction over time, and keep its steps and last states.

        A step returns the states, then what is kept of it.
        """
        xp, lengths, back, count = self.xp, self.lengths, self.backward[d], len(states)
        x = self._turned(projected) if back else projected
        every = [a[:, d] for a in (self.y, *self.kept)]
        if back and lengths is None:
            every = [a[::-1] for a in every]
        y, *kept = every
        for t in range(self.steps):
            made = step(x[t], *states)
            after = made[:count]
            if lengths is None:
                y[t] = after[0]
            else:
                live = (lengths > t).reshape(-1, 1)
                y[t] = xp.where(live, after[0], 0)
                after = tuple(xp.where(live, a, s) for a, s in zip(after, states, strict=True))
            states = after
            for place, value in zip(kept, made[count:], strict=False):
                place[t] = value
        if back and lengths is not None:
            for a, own in zip((self.y, *self.kept), every, strict=True):
                a[:, d] = self._turned(xp.ascontiguousarray(own))
        for last, state in zip(self.last, states, strict=True):
            last[d] = state

    def result(self) -> tuple[Array, ...]:
        return (self.y, *self.last, *self.kept)


@rnn.kernel("array")
def _rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    lengths: Array | None,
    h0: Array | None,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
) -> tuple[Array, ...]:
    steps = _Steps(x, r, lengths, direction, 1)
    hidden = r.shape[2]
    for d in range(len(cells)):
        f = _function(steps.xp, cells[d][0], clip)
        rt = steps.xp.ascontiguousarray(r[d].T)
        bias = None if b is None else b[d, :hidden] + b[d, hidden:]

        def step(xt: Array, h: Array, rt: Array = rt, f: Function = f) -> tuple[Array, ...]:
            return (f(xt + h @ rt),)

        steps.run(d, steps.project(w[d], bias), (steps.initial(h0, d),), step)
    return steps.result()


@gru.kernel("array")
def _gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    lengths: Array | None,
    h0: Array | None,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
    linear_before_reset: bool = False,
) -> tuple[Array, ...]:
    return _gru_steps(x, w, r, b, lengths, h0, direction, cells, clip, linear_before_reset, ())


@gru_train.kernel("array")
def _gru_train(
    x: Array, w: Array, r: Array, b: Array | None, lengths: Array | None, h0: Array | None, *, direction: str,
    cells: Cells, clip: float | None = None, linear_before_reset: bool = False,
) -> tuple[Array, ...]:  # fmt: skip
    widths = ((4 if linear_before_reset else 3) * r.shape[2],)
    return _gru_steps(x, w, r, b, lengths, h0, direction, cells, clip, linear_before_reset, widths)


def _gru_steps(
    x: Array, w: Array, r: Array, b: Array | None, lengths: Array | None, h0: Array | None, direction: str,
    cells: Cells, clip: float | None, linear_before_reset: bool, widths: Sequence[int],
) -> tuple[Array, ...]:  # fmt: skip
    steps = _Steps(x, r, lengths, direction, 1, widths)
    xp, hidden = steps.xp, r.shape[2]
    two = 2 * hidden

    def kept(*parts: Array) -> tuple[Array, ...]:
        return (xp.concatenate(parts, axis=1),) if widths else ()

    for d in range(len(cells)):
        f, g = (_function(xp, a, clip) for a in cells[d])
        bias, inner = None, 0
        if b is not None:
            bias, recurrent = b[d, : 3 * hidden].copy(), b[d, 3 * hidden :]
            bias[:two] += recurrent[:two]
            if linear_before_reset:
                inner = recurrent[two:]
            else:
                bias[two:] += recurrent[two:]
        rt = xp.ascontiguousarray(r[d].T)
        gates, candidate = xp.ascontiguousarray(rt[:, :two]), xp.ascontiguousarray(rt[:, two:])

        def linear(
            xt: Array, h: Array, rt: Array = rt, inner: Any = inner, f: Function = f, g: Function = g
        ) -> tuple[Array, ...]:
            hr = h @ rt
            zr = f(xt[:, :two] + hr[:, :two])
            seen = hr[:, two:] + inner
            n = g(xt[:, two:] + zr[:, hidden:] * seen)
            return (n + zr[:, :hidden] * (h - n), *kept(zr, n, seen))

        def plain(
            xt: Array,
            h: Array,
            gates: Array = gates,
            candidate: Array = candidate,
            f: Function = f,
            g: Function = g,
        ) -> tuple[Array, ...]:
            zr = f(xt[:, :two] + h @ gates)
            n = g(xt[:, two:] + (zr[:, hidden:] * h) @ candidate)
            return (n + zr[:, :hidden] * (h - n), *kept(zr, n))

        step = linear if linear_before_reset else plain
        steps.run(d, steps.project(w[d], bias), (steps.initial(h0, d),), step)
    return steps.result()


@lstm.kernel("array")
def _lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    lengths: Array | None,
    h0: Array | None,
    c0: Array | None,
    p: Array | None,
    *,
    direction: str,
    cells: Cells,
    clip: float | None = None,
    input_forget: bool = False,
    quantized: bool = False,
) -> tuple[Array, ...]:
    args = (x, w, r, b, lengths, h0, c0, p)
    return _lstm_steps(*args, direction, cells, clip, input_forget, quantized, ())


@lstm_train.kernel("array")
def _lstm_train(
    x: Array, w: Array, r: Array, b: Array | None, lengths: Array | None, h0: Array | None, c0: Array | None,
    p: Array | None, *, direction: str, cells: Cells, clip: float | None = None, input_forget: bool = False,
    quantized: bool = False,
) -> tuple[Array, ...]:  # fmt: skip
    args = (x, w, r, b, lengths, h0, c0, p)
    return _lstm_steps(*args, direction, cells, clip, input_forget, quantized, (4 * r.shape[2], r.shape[2]))


def _lstm_steps(
    x: Array, w: Array, r: Array, b: Array | None, lengths: Array | None, h0: Array | None, c0: Array | None,
    p: Array | None, direction: str, cells: Cells, clip: float | None, input_forget: bool, quantized: bool,
    widths: Sequence[int],
) -> tuple[Array, ...]:  # fmt: skip
    steps = _Steps(x, r, lengths, direction, 2, widths)
    xp, k = steps.xp, r.shape[2]

    def kept(i: Array, o: Array, forget: Array, n: Array, c: Array) -> tuple[Array, ...]:
        return (xp.concatenate((i, o, forget, n), axis=1), c) if widths else ()

    seen: Function = dynamic_fake_quantize.run if quantized else lambda h: h
    for d in range(len(cells)):
        f, g = (_function(xp, a, clip) for a in cells[d][:2])
        act = _function(xp, cells[d][2], None)
        bias = None if b is None else b[d, : 4 * k] + b[d, 4 * k :]
        rt = xp.ascontiguousarray(r[d].T)

        def plain(
            xt: Array,
            h: Array,
            c: Array,
            rt: Array = rt,
            f: Function = f,
            g: Function = g,
            act: Function = act,
        ) -> tuple[Array, ...]:
            gates = seen(h) @ rt
            gates += xt
            iof = f(gates[:, : 3 * k])
            i = iof[:, :k]
            forget = 1 - i if input_forget else iof[:, 2 * k :]
            n = g(gates[:, 3 * k :])
            c = forget * c + i * n
            o = iof[:, k : 2 * k]
            return o * act(c), c, *kept(i, o, forget, n, c)

        def seeing(
            xt: Array,
            h: Array,
            c: Array,
            rt: Array = rt,
            f: Function = f,
            g: Function = g,
            act: Function = act,
            d: int = d,
        ) -> tuple[Array, ...]:
            assert p is not None
            gates = seen(h) @ rt
            gates += xt
            i = f(gates[:, :k] + p[d, :k] * c)
            forget = 1 - i if input_forget else f(gates[:, 2 * k : 3 * k] + p[d, 2 * k :] * c)
            n = g(gates[:, 3 * k :])
            c = forget * c + i * n
            o = f(gates[:, k : 2 * k] + p[d, k : 2 * k] * c)
            return o * act(c), c, *kept(i, o, forget, n, c)

        states = (steps.initial(h0, d), steps.initial(c0, d))
        steps.run(d, steps.project(w[d], bias), states, plain if p is None else seeing)
    return steps.result()


@state_walk.kernel("array")
def _state_walk(
    gy: Array | None, factor: Array, kept: Array | None, r: Array, last: Array
) -> tuple[Array, Array, Array]:
    xp, (steps, batch, _), hidden = namespace(factor), factor.shape, r.shape[1]
    gates = xp.empty(factor.shape, factor.dtype)
    states = xp.empty((steps, batch, hidden), factor.dtype)
    by_gate, of_gate = (x.reshape(steps, batch, -1, hidden) for x in (factor, gates))
    for t in range(steps - 1, -1, -1):
        s = states[t]
        s[...] = last
        if gy is not None:
            s += gy[t]
        xp.multiply(by_gate[t], s[:, None], out=of_gate[t])
        last = gates[t] @ r
        if kept is not None:
            last += kept[t] * s
    return gates, states, last


@cell_walk.kernel("array")
def _cell_walk(
    gy: Array | None,
    factor: Array,
    into: Array,
    through: Array,
    kept: Array | None,
    r: Array,
    last: Array,
    last_cell: Array,
) -> tuple[Array, Array, Array]:
    xp, (steps, batch, _), hidden = namespace(factor), factor.shape, r.shape[1]
    gates = xp.empty(factor.shape, factor.dtype)
    by_gate, of_gate = (x.reshape(steps, batch, 4, hidden) for x in (factor, gates))
    cell = last_cell.copy()
    for t in range(steps - 1, -1, -1):
        s = last if gy is None else last + gy[t]
        cell += s * into[t]
        xp.multiply(by_gate[t], cell[:, None], out=of_gate[t])
        xp.multiply(by_gate[t, :, 1], s, out=of_gate[t, :, 1])
        last = gates[t] @ r
        if kept is not None:
            last += kept[t] * s
        cell *= through[t]
    return gates, last, cell


for _op in (rnn_grad, gru_grad, lstm_grad):
    assert _op.composition is not None
    _op.kernel("array")(_op.composition)
