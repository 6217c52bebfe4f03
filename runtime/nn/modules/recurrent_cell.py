"""Recurrent cells, which take one step of a sequence."""

from __future__ import annotations

import math
from typing import Any

from ....ops.errors import OpError, ShapeError
from ...tensor.creation import zeros
from .. import init
from ..functional import recurrent
from ..module import Module
from .dense import blank


class RNNCellBase(Module):
    """One step of a recurrent layer.

    Args:
        input_size: elements of the input.
        hidden_size: elements of the state.
        bias: whether there are biases.
        num_chunks: how many gates.
        device: where the parameters lie.
        dtype: their element type.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        gates = num_chunks * hidden_size
        self.weight_ih = blank((gates, input_size), dtype, device)
        self.weight_hh = blank((gates, hidden_size), dtype, device)
        self.register_parameter("bias_ih", blank((gates,), dtype, device) if bias else None)
        self.register_parameter("bias_hh", blank((gates,), dtype, device) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniformly within 1 / sqrt(hidden size)."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def extra_repr(self) -> str:
        """Return the sizes, and the settings that are not the defaults."""
        shown = f"{self.input_size}, {self.hidden_size}" + ("" if self.bias is True else f", bias={self.bias}")
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return shown if nonlinearity == "tanh" else f"{shown}, nonlinearity={nonlinearity}"

    def _batched(self, input: Any, states: Any) -> tuple[Any, list[Any]]:
        """Return the input and the states with a batch axis, zeros for states that are not given.

        Raises:
            ShapeError: if sizes do not fit.
        """
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ShapeError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        for i, s in enumerate(states or ()):
            if s.ndim not in (1, 2):
                which = f"hx[{i}]" if name == "LSTMCell" else "hidden"
                raise ShapeError(f"{name}: Expected {which} to be 1D or 2D, got {s.ndim}D instead")
        x = input if input.ndim == 2 else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise ShapeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        if states is None:
            zero = zeros(x.shape[0], self.hidden_size, dtype=x.dtype, device=x.device)
            return x, [zero, zero]
        rows = [s if input.ndim == 2 else s.unsqueeze(0) for s in states]
        for i, s in enumerate(rows):
            if s.shape[0] != x.shape[0]:
                raise ShapeError(f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size {s.shape[0]}")
            if s.shape[1] != self.hidden_size:
                raise ShapeError(
                    f"hidden{i} has inconsistent hidden_size: got {s.shape[1]}, expected {self.hidden_size}"
                )
        return x, rows

    def _own(self) -> tuple[Any, Any, Any, Any]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh


class RNNCell(RNNCellBase):
    """One step of `RNN`.

    Args:
        input_size: elements of the input.
        hidden_size: elements of the state.
        bias: whether there are biases.
        nonlinearity: `tanh` or `relu`.
        device: where the parameters lie.
        dtype: their element type.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return the next state, (B, H) of (B, I), or (H,) of (I,).

        Raises:
            ShapeError: if sizes do not fit.
            OpError: if there is no such nonlinearity.
        """
        x, states = self._batched(input, None if hx is None else [hx])
        if self.nonlinearity not in ("tanh", "relu"):
            raise OpError(f"Unknown nonlinearity: {self.nonlinearity}")
        y = recurrent.rnn_cell(x, states[0], *self._own(), relu=self.nonlinearity == "relu")
        return y if input.ndim == 2 else y.squeeze(0)


class LSTMCell(RNNCellBase):
    """One step of `LSTM`.

    Args:
        input_size: elements of the input.
        hidden_size: elements of the state and of the cell.
        bias: whether there are biases.
        device: where the parameters lie.
        dtype: their element type.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Return the next state and cell, (B, H) of (B, I), or (H,) of (I,).

        Raises:
            ShapeError: if sizes do not fit.
        """
        x, states = self._batched(input, hx)
        h, c = recurrent.lstm_cell(x, states[0], states[1], *self._own())
        return (h, c) if input.ndim == 2 else (h.squeeze(0), c.squeeze(0))


class GRUCell(RNNCellBase):
    """One step of `GRU`.

    Args:
        input_size: elements of the input.
        hidden_size: elements of the state.
        bias: whether there are biases.
        device: where the parameters lie.
        dtype: their element type.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return the next state, (B, H) of (B, I), or (H,) of (I,).

        Raises:
            ShapeError: if sizes do not fit.
        """
        x, states = self._batched(input, None if hx is None else [hx])
        y = recurrent.gru_cell(x, states[0], *self._own())
        return y if input.ndim == 2 else y.squeeze(0)
