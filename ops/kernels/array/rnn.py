"""Recurrent layers: one matrix product for the inputs of all steps, then a loop over time.

Axes: T steps, B batch, I input, H hidden, D directions, G gates times H.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...op import namespace
from ...quantize import dynamic_fake_quantize
from ...rnn import BACKWARD, Activation, Cells, flipped, gru, lstm, rnn
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
    """The inputs of one layer, and what its directions make of them."""

    def __init__(self, x: Array, r: Array, lengths: Array | None, direction: str, states: int) -> None:
        self.xp = namespace(x)
        self.x, self.lengths = x, lengths
        self.steps, self.batch = x.shape[:2]
        if lengths is not None and bool((lengths == self.steps).all()):
            self.lengths = None
        self.backward = BACKWARD[direction]
        hidden, directions = r.shape[2], len(self.backward)
        self.y = self.xp.empty((self.steps, directions, self.batch, hidden), x.dtype)
        self.last = [self.xp.empty((directions, self.batch, hidden), x.dtype) for _ in range(states)]

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
        """Run one direction over time, and keep its steps and last states."""
        xp, lengths, back = self.xp, self.lengths, self.backward[d]
        x = self._turned(projected) if back else projected
        y = self.y[:, d]
        if back and lengths is None:
            y = y[::-1]
        for t in range(self.steps):
            after = step(x[t], *states)
            if lengths is None:
                y[t] = after[0]
            else:
                live = (lengths > t).reshape(-1, 1)
                y[t] = xp.where(live, after[0], 0)
                after = tuple(xp.where(live, a, s) for a, s in zip(after, states, strict=True))
            states = after
        if back and lengths is not None:
            self.y[:, d] = self._turned(xp.ascontiguousarray(y))
        for last, state in zip(self.last, states, strict=True):
            last[d] = state

    def result(self) -> tuple[Array, ...]:
        return (self.y, *self.last)


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
    steps = _Steps(x, r, lengths, direction, 1)
    xp, hidden = steps.xp, r.shape[2]
    two = 2 * hidden
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
            n = g(xt[:, two:] + zr[:, hidden:] * (hr[:, two:] + inner))
            return (n + zr[:, :hidden] * (h - n),)

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
            return (n + zr[:, :hidden] * (h - n),)

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
    steps = _Steps(x, r, lengths, direction, 2)
    xp, k = steps.xp, r.shape[2]
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
            c = forget * c + i * g(gates[:, 3 * k :])
            return iof[:, k : 2 * k] * act(c), c

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
            c = forget * c + i * g(gates[:, 3 * k :])
            return f(gates[:, k : 2 * k] + p[d, k : 2 * k] * c) * act(c), c

        states = (steps.initial(h0, d), steps.initial(c0, d))
        steps.run(d, steps.project(w[d], bias), states, plain if p is None else seeing)
    return steps.result()
