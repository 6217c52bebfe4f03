"""Recurrent layers and cells as functions, with PyTorch's weights and its order of gates.

Axes: T steps, B batch, I input, H hidden, D directions, G gates times H.
Source: Elman 1990; Hochreiter & Schmidhuber 1997; Sak et al. 2014 (projections); Cho et al. 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ....ops import control, create, index, layout, pointwise as pw, rnn as rnn_ops
from ....ops.errors import ShapeError
from ....ops.rnn import BACKWARD, Activation, Cells
from ...amp.casting import in_half
from .dense import linear
from .dropout import dropout

Weights: TypeAlias = tuple[Any, Any, Any, Any, Any]
"""Of one direction of a layer: W_ih, W_hh, b_ih, b_hh, W_hr; None for what it has not."""

SIGMOID: Activation = ("Sigmoid", 0.0, 0.0)
TANH: Activation = ("Tanh", 0.0, 0.0)
RELU: Activation = ("Relu", 0.0, 0.0)

ORDER = {"RNN_TANH": (0,), "RNN_RELU": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
"""Where PyTorch has each gate of the op: i, f, g, o for the op's i, o, f, n; r, z, n for its z, r, n."""


def _ordered(x: Any, mode: str) -> list[Any]:
    """Return the gates of a weight or bias in the op's order."""
    order = ORDER[mode]
    if len(order) == 1:
        return [x]
    parts = layout.split(x, axis=0, sizes=(x.shape[0] // len(order),) * len(order))
    return [parts[i] for i in order]


def _together(kinds: Sequence[Sequence[Any]], mode: str) -> Any:
    """Return what the directions have, the op's way: (D, G, *), or biases (D, 2G)."""
    parts = [gate for kind in kinds for x in kind for gate in _ordered(x, mode)]
    x = layout.concat(*parts, axis=0) if len(parts) > 1 else parts[0]
    return layout.reshape(x, shape=(len(kinds), -1, *x.shape[1:]) if x.ndim > 1 else (len(kinds), -1))


def layer(mode: str, x: Any, weights: Sequence[Weights], states: Sequence[Any], lengths: Any) -> tuple[Any, ...]:
    """Return every step of a layer in its directions, and its last states.

    Args:
        mode: `RNN_TANH`, `RNN_RELU`, `LSTM` or `GRU`.
        x: the steps.
        weights: of each direction.
        states: the initial state, and for an LSTM the initial cell; None for zeros.
        lengths: how many steps of each batch entry count; None for all.

    Shapes: (T, B, I), states (D, B, H), lengths (B,) -> (T, B, D * H), states (D, B, H).
    """
    x, *states = in_half(x, *states)
    if mode == "LSTM" and weights[0][4] is not None:
        return _projected(x, weights, states, lengths)
    direction = "forward" if len(weights) == 1 else "bidirectional"
    w, r = (_together([[kinds[k]] for kinds in weights], mode) for k in (0, 1))
    b = None if weights[0][2] is None else _together([[kinds[2], kinds[3]] for kinds in weights], mode)
    cells: Cells
    match mode:
        case "LSTM":
            cells = ((SIGMOID, TANH, TANH),) * len(weights)
            y, *last = rnn_ops.lstm(x, w, r, b, lengths, *states, None, direction=direction, cells=cells)
        case "GRU":
            cells = ((SIGMOID, TANH),) * len(weights)
            y, *last = rnn_ops.gru(
                x, w, r, b, lengths, *states, direction=direction, cells=cells, linear_before_reset=True
            )
        case _:
            cells = ((RELU if mode == "RNN_RELU" else TANH,),) * len(weights)
            y, *last = rnn_ops.rnn(x, w, r, b, lengths, *states, direction=direction, cells=cells)
    steps, directions, batch, hidden = y.shape
    if directions > 1:
        y = layout.transpose(y, perm=(0, 2, 1, 3))
    return layout.reshape(y, shape=(steps, batch, directions * hidden)), *last


def _turned(x: Any, lengths: Any) -> Any:
    if lengths is None:
        return layout.flip(x, axes=(0,))
    return index.reverse_sequence(x, lengths, time_axis=0, batch_axis=1)


def _projected(x: Any, weights: Sequence[Weights], states: Sequence[Any], lengths: Any) -> tuple[Any, ...]:
    """Run an LSTM whose state is a projection of what its cell shows, a step at a time."""
    batch = x.shape[1]
    runs = []
    for d, (w, r, b_ih, b_hh, w_hr) in enumerate(weights):
        back = BACKWARD["bidirectional"][d]
        gates = linear(_turned(x, lengths) if back else x, w, b_ih if b_ih is None else pw.add(b_ih, b_hh))
        sizes = (w_hr.shape[0], w_hr.shape[1])
        h, c = (
            create.full_like(x, shape=(batch, n), value=0) if s is None else control.unstack(s, 0)[d]
            for s, n in zip(states, sizes, strict=True)
        )
        made = []
        for t, at in enumerate(control.unstack(gates, 0)):
            shown, after = _lstm_step(pw.add(at, linear(h, r)), c)
            new = linear(shown, w_hr)
            if lengths is None:
                h, c = new, after
                made.append(new)
            else:
                live = layout.reshape(pw.greater(lengths, t), shape=(-1, 1))
                made.append(pw.where(live, new, 0.0))
                h, c = pw.where(live, new, h), pw.where(live, after, c)
        y = control.stacked(made, 0)
        runs.append((_turned(y, lengths) if back else y, h, c))
    ys, hs, cs = zip(*runs, strict=True)
    return (ys[0] if len(ys) == 1 else layout.concat(*ys, axis=2)), control.stacked(hs, 0), control.stacked(cs, 0)


def _lstm_step(gates: Any, c: Any) -> tuple[Any, Any]:
    """Return what the cell shows and the cell, of the gates (i, f, g, o) before their activations."""
    i, f, g, o = layout.split(gates, axis=1, sizes=(gates.shape[1] // 4,) * 4)
    c = pw.add(pw.mul(pw.sigmoid(f), c), pw.mul(pw.sigmoid(i), pw.tanh(g)))
    return pw.mul(pw.sigmoid(o), pw.tanh(c)), c


def stack(
    mode: str, x: Any, layers: Sequence[Sequence[Weights]], states: Sequence[Any], *, lengths: Any = None,
    dropout_p: float = 0.0, training: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    """Return every step of the last of several layers, and the last states of all.

    Args:
        mode: `RNN_TANH`, `RNN_RELU`, `LSTM` or `GRU`.
        x: the steps.
        layers: the weights of each direction of each layer.
        states: the initial state, and for an LSTM the initial cell; None for zeros.
        lengths: how many steps of each batch entry count; None for all.
        dropout_p: the probability of dropout between layers.
        training: whether there is dropout.

    Shapes: (T, B, I), states (layers * D, B, H), lengths (B,) -> (T, B, D * H), states (layers * D, B, H).

    Raises:
        ShapeError: if there is no step.
    """
    if x.shape[0] == 0:
        raise ShapeError("Expected sequence length to be larger than 0 in RNN")
    ways = len(layers[0])
    last: list[tuple[Any, ...]] = []
    for at, weights in enumerate(layers):
        own = [s if s is None or len(layers) == 1 else _rows(s, at * ways, ways) for s in states]
        x, *after = layer(mode, x, weights, own, lengths)
        last.append(tuple(after))
        if at < len(layers) - 1:
            x = dropout(x, dropout_p, training)
    if len(layers) == 1:
        return x, *last[0]
    return x, *(layout.concat(*kind, axis=0) for kind in zip(*last, strict=True))


def _rows(x: Any, start: int, count: int) -> Any:
    return layout.slice_(x, starts=(start,), stops=(start + count,), steps=(1,), axes=(0,))


def rnn_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, relu: bool = False) -> Any:
    """Return the next state of a plain cell. Shapes: (B, I), (B, H) -> (B, H)."""
    x = pw.add(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh))
    return pw.relu(x) if relu else pw.tanh(x)


def lstm_cell(input: Any, hx: Any, cx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Any, Any]:
    """Return the next state and cell of an LSTM. Shapes: (B, I), (B, H), (B, H) -> (B, H), (B, H)."""
    (cx,) = in_half(cx)
    return _lstm_step(pw.add(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh)), cx)


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    """Return the next state of a gated recurrent unit. Shapes: (B, I), (B, H) -> (B, H)."""
    (hx,) = in_half(hx)
    hidden = hx.shape[1]
    xr, xz, xn = layout.split(linear(input, w_ih, b_ih), axis=1, sizes=(hidden,) * 3)
    hr, hz, hn = layout.split(linear(hx, w_hh, b_hh), axis=1, sizes=(hidden,) * 3)
    z = pw.sigmoid(pw.add(xz, hz))
    n = pw.tanh(pw.add(xn, pw.mul(pw.sigmoid(pw.add(xr, hr)), hn)))
    return pw.add(n, pw.mul(z, pw.sub(hx, n)))
