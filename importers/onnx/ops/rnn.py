"""Bindings: recurrent layers. The batch-first layout and the flat lists of activation parameters end here."""

from __future__ import annotations

from typing import Any

from ....ops import layout, rnn as rnn_ops
from ....ops.dims import show
from ....ops.errors import ShapeError, UnsupportedAttributeError
from ....ops.quantize import dequantize_linear, dynamic_fake_quantize
from ....ops.rnn import BACKWARD, Cells
from ..node import NodeView
from ..registry import binds

ALPHA = {
    "Affine": 1.0,
    "LeakyRelu": 0.01,
    "ThresholdedRelu": 1.0,
    "ScaledTanh": 1.0,
    "HardSigmoid": 0.2,
    "Elu": 1.0,
}
BETA = {"Affine": 0.0, "ScaledTanh": 1.0, "HardSigmoid": 0.5}
NAMES = {n.lower(): n for n in (*ALPHA, "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")}


def cells(node: NodeView, defaults: tuple[str, ...]) -> tuple[str, Cells]:
    """Return the direction and its activations; parameters go, in order, to those that take them."""
    direction = node.one_of("direction", "forward", tuple(BACKWARD))
    n = len(BACKWARD[direction]) * len(defaults)
    names = node.attr("activations") or list(defaults) * len(BACKWARD[direction])
    if len(names) != n or any(str(name).lower() not in NAMES for name in names):
        raise UnsupportedAttributeError(f"{node}: activations are {names}, wanted {n} of {sorted(NAMES.values())}")
    alphas, betas = (iter(node.attr(a, [])) for a in ("activation_alpha", "activation_beta"))
    made = []
    for name in (NAMES[name.lower()] for name in names):
        alpha = float(next(alphas, ALPHA[name])) if name in ALPHA else 0.0
        beta = float(next(betas, BETA[name])) if name in BETA else 0.0
        made.append((name, alpha, beta))
    size = len(defaults)
    return direction, tuple(tuple(made[i : i + size]) for i in range(0, n, size))


def _bound(node: NodeView, defaults: tuple[str, ...]) -> dict[str, Any]:
    """Return the attributes that the three layers share; what the weights say already is not read."""
    if node.since_version == 1:
        node.ignore("output_sequence")
    direction, activations = cells(node, defaults)
    return {"direction": direction, "cells": activations, "clip": node.attr("clip")}


def _flipped(x: Any, perm: tuple[int, ...]) -> Any:
    return None if x is None else layout.transpose(x, perm=perm)


def _laid_out(
    node: NodeView,
    op: Any,
    x: Any,
    weights: tuple[Any, ...],
    states: tuple[Any, ...],
    rest: Any,
    **attrs: Any,
) -> Any:
    """Call a layer, time first; `layout=1` has the batch first in x, states and outputs."""
    hidden, shape = node.attr("hidden_size"), weights[1].type.known_shape
    if hidden is not None and shape and isinstance(shape[-1], int) and shape[-1] != hidden:
        raise ShapeError(f"hidden_size is {hidden}, the recurrent weights are {show(shape)}")
    if not node.attr("layout", 0):
        return op(x, *weights, *states, *rest, **attrs)
    states = tuple(_flipped(s, (1, 0, 2)) for s in states)
    y, *last = op(_flipped(x, (1, 0, 2)), *weights, *states, *rest, **attrs)
    return (_flipped(y, (2, 0, 1, 3)), *(_flipped(s, (1, 0, 2)) for s in last))


@binds("RNN", 1, 7, 14, 22)
def rnn(node: NodeView, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    """RNN: all directions, activations, lengths, layouts."""
    attrs = _bound(node, ("Tanh",))
    return _laid_out(node, rnn_ops.rnn, x, (w, r, b, lengths), (h0,), (), **attrs)


@binds("GRU", 1, 3, 7, 14, 22)
def gru(node: NodeView, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None) -> Any:
    """GRU: as RNN, with the reset gate before or after the product."""
    attrs = _bound(node, ("Sigmoid", "Tanh"))
    if node.since_version > 1:
        attrs["linear_before_reset"] = bool(node.attr("linear_before_reset", 0))
    return _laid_out(node, rnn_ops.gru, x, (w, r, b, lengths), (h0,), (), **attrs)


@binds("LSTM", 1, 7, 14, 22)
def lstm(
    node: NodeView,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    lengths: Any = None,
    h0: Any = None,
    c0: Any = None,
    p: Any = None,
) -> Any:
    """LSTM: as RNN, with peepholes and coupled gates."""
    attrs = _bound(node, ("Sigmoid", "Tanh", "Tanh"))
    attrs["input_forget"] = bool(node.attr("input_forget", 0))
    return _laid_out(node, rnn_ops.lstm, x, (w, r, b, lengths), (h0, c0), (p,), **attrs)


@binds("DynamicQuantizeLSTM", 1, domain="com.microsoft")
def dynamic_quantize_lstm(
    node: NodeView, x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, c0: Any, p: Any,
    w_scale: Any, w_zero: Any, r_scale: Any, r_zero: Any,
) -> Any:  # fmt: skip
    """DynamicQuantizeLSTM: weights (D, I, 4H) of 8 bits; the input, and h at each step, quantised by their range."""
    attrs = _bound(node, ("Sigmoid", "Tanh", "Tanh"))
    attrs["input_forget"] = bool(node.attr("input_forget", 0))
    weights = (_weights(w, w_scale, w_zero), _weights(r, r_scale, r_zero), b, lengths)
    return _laid_out(node, rnn_ops.lstm, dynamic_fake_quantize(x), weights, (h0, c0), (p,), quantized=True, **attrs)


def _weights(w: Any, scale: Any, zero: Any) -> Any:
    """Return quantised weights as floats, with the gates before the inputs; scales are one a direction, or a gate."""
    scale, zero = (layout.reshape(v, shape=(w.shape[0], 1, -1)) for v in (scale, zero))
    return _flipped(dequantize_linear(w, scale, zero, dtype=str(scale.dtype)), (0, 2, 1))
