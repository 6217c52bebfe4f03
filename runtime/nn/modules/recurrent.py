"""Recurrent layers, which run over sequences."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from ....ops import index
from ....ops.errors import DTypeError, OpError, ShapeError
from ...amp.casting import alike_in_half
from ...tensor.creation import tensor
from .. import init
from ..functional import recurrent
from ..module import Module
from ..packed import PackedSequence, lengths_of, packed, padded
from .dense import blank

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}


def _checked(input_size: Any, hidden_size: Any, num_layers: int, bias: Any, batch_first: Any, proj_size: int) -> None:
    """Check the settings of a layer.

    Raises:
        TypeError: if one is of another type.
        OpError: if one is of another size.
    """
    for name, value, wanted in (
        ("bias", bias, bool),
        ("batch_first", batch_first, bool),
        ("input_size", input_size, int),
        ("hidden_size", hidden_size, int),
    ):
        if not isinstance(value, wanted):
            raise TypeError(f"{name} should be of type {wanted.__name__}, got: {type(value).__name__}")
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if size <= 0:
            raise OpError(f"{name} must be greater than zero")
    if proj_size < 0:
        raise OpError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise OpError("proj_size has to be smaller than hidden_size")


class RNNBase(Module):
    """Layers of recurrent cells, in one or both directions.

    Args:
        mode: `RNN_TANH`, `RNN_RELU`, `LSTM` or `GRU`.
        input_size: elements of a step.
        hidden_size: elements of the state.
        num_layers: how many layers, each over the steps of the one before.
        bias: whether there are biases.
        batch_first: whether batches are (B, T, I) instead of (T, B, I); states are not affected.
        dropout: the probability of dropout after each layer but the last.
        bidirectional: whether each layer runs backwards as well.
        proj_size: elements of an LSTM's projected state; 0 for none.
        device: where the parameters lie.
        dtype: their element type.

    Raises:
        TypeError: if a setting is of another type.
        OpError: if a setting is of another size.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(dropout, numbers.Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise OpError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        _checked(input_size, hidden_size, num_layers, bias, batch_first, proj_size)
        if mode not in GATES:
            raise OpError("Unrecognized RNN mode: " + mode)
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._all_weights: list[list[str]] = []
        shown = proj_size or hidden_size
        ways = 2 if bidirectional else 1
        for layer in range(num_layers):
            seen = input_size if layer == 0 else shown * ways
            for suffix in ("", "_reverse")[:ways]:
                gates = GATES[mode] * hidden_size
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, seen), "weight_hh": (gates, shown)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = [f"{kind}_l{layer}{suffix}" for kind in shapes]
                for name, shape in zip(names, shapes.values(), strict=True):
                    setattr(self, name, blank(shape, dtype, device))
                self._all_weights.append(names)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: uniformly within 1 / sqrt(hidden size)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def flatten_parameters(self) -> None:
        """Do nothing: the parameters are never copied into one block, as cuDNN wants them."""

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each direction of each layer."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def extra_repr(self) -> str:
        """Return the settings that are not the defaults."""
        shown = [str(self.input_size), str(self.hidden_size)]
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0,
            "bidirectional": False,
        }
        shown += [f"{k}={getattr(self, k)}" for k, default in defaults.items() if getattr(self, k) != default]
        return ", ".join(shown)

    def _weights(self) -> list[list[recurrent.Weights]]:
        """Return the parameters of each direction of each layer."""

        def of(layer: int, suffix: str) -> recurrent.Weights:
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
            ih, hh, bias_ih, bias_hh, hr = (getattr(self, f"{kind}_l{layer}{suffix}", None) for kind in kinds)
            return ih, hh, bias_ih, bias_hh, hr

        suffixes = ("", "_reverse")[: 1 + self.bidirectional]
        return [[of(layer, suffix) for suffix in suffixes] for layer in range(self.num_layers)]

    def _checked_input(self, input: Any, dims: int) -> None:
        weight = self.weight_ih_l0
        if input.dtype != weight.dtype and not alike_in_half(input, weight):
            raise DTypeError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: model.to({input.dtype})"
            )
        if input.ndim != dims:
            raise ShapeError(f"input must have {dims} dimensions, got {input.ndim}")
        if input.shape[-1] != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )

    def _checked_states(self, states: list[Any], batch: int) -> None:
        rows = self.num_layers * (1 + self.bidirectional)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        for i, (state, size) in enumerate(zip(states, sizes, strict=False)):
            if tuple(state.shape) != (rows, batch, size):
                which = f"hidden[{i}]" if self.mode == "LSTM" else "hidden"
                raise ShapeError(f"Expected {which} size {(rows, batch, size)}, got {list(state.shape)}")
            if state.dtype != self.weight_hh_l0.dtype and not alike_in_half(state, self.weight_hh_l0):
                raise DTypeError(f"{self.mode}: a state is {state.dtype}, the weights are {self.weight_hh_l0.dtype}")

    def _given(self, hx: Any) -> list[Any] | None:
        """Return the initial states that a call gives."""
        if hx is None:
            return None
        return list(hx) if self.mode == "LSTM" else [hx]

    def _returned(self, states: Any) -> Any:
        return tuple(states) if self.mode == "LSTM" else states[0]

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """Run over all steps.

        Args:
            input: (T, B, I), or (B, T, I) where `batch_first`, or (T, I), or a `PackedSequence`.
            hx: the initial state (layers * D, B, H), for an LSTM a pair of that and the initial cell; zeros by default.

        Returns:
            Every step of the last layer, (T, B, D * H) laid out as the input; the last state of each layer and
            direction, laid out as `hx`.

        Raises:
            ShapeError: if sizes do not fit.
            DTypeError: if element types do not fit.
        """
        if isinstance(input, PackedSequence):
            return self._over_packed(input, hx)
        name = "RNN" if self.mode.startswith("RNN") else self.mode
        if input.ndim not in (2, 3):
            word = "tensor instead" if name == "RNN" else "instead"
            raise ShapeError(f"{name}: Expected input to be 2D or 3D, got {input.ndim}D {word}")
        batched = input.ndim == 3
        states = self._given(hx)
        if states is not None and any(s.ndim != input.ndim for s in states):
            kind = "batched 3-D" if batched else "unbatched 2-D"
            ranks = tuple(f"{s.ndim}-D" for s in states)
            what = f"hx and cx should also be {input.ndim}-D but got ({', '.join(ranks)}) tensors"
            if self.mode != "LSTM":
                what = f"hx should also be {input.ndim}-D but got {ranks[0]} tensor"
            raise ShapeError(f"For {kind} input, {what}")
        if not batched:
            input = input.unsqueeze(1)
            states = None if states is None else [s.unsqueeze(1) for s in states]
        elif self.batch_first:
            input = input.transpose(0, 1)
        self._checked_input(input, 3)
        if states is not None:
            self._checked_states(states, input.shape[1])
        y, *last = self._run(input, states, None)
        if not batched:
            return y.squeeze(1), self._returned([s.squeeze(1) for s in last])
        return y.transpose(0, 1) if self.batch_first else y, self._returned(last)

    def _over_packed(self, input: PackedSequence, hx: Any) -> tuple[Any, Any]:
        self._checked_input(input.data, 2)
        states = self._given(hx)
        lengths = lengths_of(input.batch_sizes)
        if states is not None:
            self._checked_states(states, lengths.size)
            if input.sorted_indices is not None:
                states = [index.gather(s, input.sorted_indices, axis=1) for s in states]
        counted = None if (lengths == lengths[0]).all() else tensor(lengths, device=input.data.device)
        y, *last = self._run(padded(input.data, input.batch_sizes), states, counted)
        if input.unsorted_indices is not None:
            last = [index.gather(s, input.unsorted_indices, axis=1) for s in last]
        return input._replace(data=packed(y, input.batch_sizes)), self._returned(last)

    def _run(self, x: Any, states: list[Any] | None, lengths: Any) -> tuple[Any, ...]:
        given = [None] * (2 if self.mode == "LSTM" else 1) if states is None else states
        return recurrent.stack(
            self.mode, x, self._weights(), given, lengths=lengths, dropout_p=self.dropout, training=self.training
        )


def _no_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise OpError("proj_size argument is only supported for LSTM, not RNN or GRU")


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu.

    Args:
        args: as `RNNBase` without the mode, with `nonlinearity` (`tanh` or `relu`) after `num_layers`.
        kwargs: the same by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        if len(args) > 3:
            nonlinearity, args = args[3], args[:3] + args[4:]
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise OpError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """c' = f c + i g, h' = o tanh(c'), with the gates i, f, g, o in this order in the weights.

    Args:
        args: as `RNNBase` without the mode.
        kwargs: the same by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """h' = (1 - z) n + z h, n = tanh(W x + b + r (W h + b)), with the gates r, z, n in this order in the weights.

    Args:
        args: as `RNNBase` without the mode.
        kwargs: the same by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)
