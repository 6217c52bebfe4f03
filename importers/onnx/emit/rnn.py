"""Emitters: recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import rnn as ops
from ....runtime.graph.graph import Value
from ..ops.rnn import ALPHA, BETA
from .registry import emits
from .writer import Writer

DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


def _layer(
    w: Writer, operator: str, outputs: int, inputs: tuple[Any, ...], r: Value, direction: str, cells: ops.Cells,
    clip: float | None, **attrs: Any,
) -> Any:  # fmt: skip
    """Write a layer; activations that are the operator's own are left out."""
    given = [a for cell in cells for a in cell]
    own = tuple(name for name, _, _ in given) == DEFAULTS[operator] * len(cells)
    return w.add(
        operator, *inputs, outputs=outputs, direction=direction, hidden_size=int(r.shape[2]), clip=clip,
        activations=None if own else [name for name, _, _ in given],
        activation_alpha=[a for n, a, _ in given if n in ALPHA] or None,
        activation_beta=[b for n, _, b in given if n in BETA] or None,
        **attrs,
    )  # fmt: skip


def _lengths(w: Writer, lengths: Value | None) -> str | None:
    return None if lengths is None else w.cast(lengths, np.int32)


@emits(ops.rnn)
def rnn(
    w: Writer, x: Value, weight: Value, r: Value, b: Any, lengths: Any, h0: Any, *, direction: str, cells: ops.Cells,
    clip: float | None = None,
) -> Any:  # fmt: skip
    return _layer(w, "RNN", 2, (x, weight, r, b, _lengths(w, lengths), h0), r, direction, cells, clip)


@emits(ops.gru)
def gru(
    w: Writer, x: Value, weight: Value, r: Value, b: Any, lengths: Any, h0: Any, *, direction: str, cells: ops.Cells,
    clip: float | None = None, linear_before_reset: bool = False,
) -> Any:  # fmt: skip
    inputs = (x, weight, r, b, _lengths(w, lengths), h0)
    before = 1 if linear_before_reset else None
    return _layer(w, "GRU", 2, inputs, r, direction, cells, clip, linear_before_reset=before)


@emits(ops.lstm)
def lstm(
    w: Writer, x: Value, weight: Value, r: Value, b: Any, lengths: Any, h0: Any, c0: Any, p: Any, *, direction: str,
    cells: ops.Cells, clip: float | None = None, input_forget: bool = False, quantized: bool = False,
) -> Any:  # fmt: skip
    if quantized:
        return None
    inputs = (x, weight, r, b, _lengths(w, lengths), h0, c0, p)
    return _layer(w, "LSTM", 3, inputs, r, direction, cells, clip, input_forget=1 if input_forget else None)
