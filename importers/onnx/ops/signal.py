"""Bindings: signals."""

from __future__ import annotations

from typing import Any

from ....ops import layout, signal as signal_ops
from ....ops.dims import DimLike
from ....runtime.graph.contents import dims_of
from ..node import NodeView
from ..registry import binds
from ..tensors import dtype_of

WINDOWS = {"HannWindow": (0.5, 0.5), "HammingWindow": (25 / 46, 21 / 46), "BlackmanWindow": (0.42, 0.5, 0.08)}


@binds("HannWindow", 17)
@binds("HammingWindow", 17)
@binds("BlackmanWindow", 17)
def window(node: NodeView, size: Any) -> Any:
    return signal_ops.cosine_window(
        size,
        coefficients=WINDOWS[node.op_type],
        periodic=bool(node.attr("periodic", 1)),
        dtype=dtype_of(node.attr("output_datatype", 1)).name,
    )


@binds("MelWeightMatrix", 17)
def mel_weight_matrix(node: NodeView, bins: Any, length: Any, rate: Any, low: Any, high: Any) -> Any:
    dtype = dtype_of(node.attr("output_datatype", 1)).name
    return signal_ops.mel_weights(bins, length, rate, low, high, dtype=dtype)


def transform(node: NodeView, x: Any, dft_length: Any, axis: Any) -> Any:
    """Return the Fourier transform that a node asks for; its axis may be known at run time only."""
    return signal_ops.dft(
        x,
        axis=axis % x.ndim,
        length=None if dft_length is None else dims_of(dft_length)[0],
        inverse=bool(node.attr("inverse", 0)),
        onesided=bool(node.attr("onesided", 0)),
    )


@binds("DFT", 17)
def dft_17(node: NodeView, x: Any, dft_length: Any = None) -> Any:
    return transform(node, x, dft_length, node.attr("axis", 1))


@binds("DFT", 20)
def dft(node: NodeView, x: Any, dft_length: Any = None, axis: Any = None) -> Any:
    return transform(node, x, dft_length, -2 if axis is None else dims_of(axis)[0])


@binds("STFT", 17)
def stft(node: NodeView, x: Any, frame_step: Any, window: Any = None, frame_length: Any = None) -> Any:
    """STFT: frames of `frame_length`, or as long as the window, or the whole signal."""
    length: DimLike = x.shape[1]
    if frame_length is not None:
        (length,) = dims_of(frame_length)
    elif window is not None:
        length = window.shape[0]
    if x.ndim == 2:
        x = layout.unsqueeze(x, axes=(2,))
    (step,) = dims_of(frame_step)
    return signal_ops.stft(x, window, length=length, step=step, onesided=bool(node.attr("onesided", 1)))
