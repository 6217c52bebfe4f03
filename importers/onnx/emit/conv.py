"""Emitters: convolution and its adjoint in x, which ONNX calls ConvTranspose."""

from __future__ import annotations

from typing import Any

from ....ops import conv as ops
from ....ops.dims import Dim, Shape
from ....ops.window import Window
from ....runtime.graph.graph import Value
from .patterns import BIASED
from .registry import emits
from .writer import Writer


def written_pads(pairs: Any) -> list[int] | None:
    """Return the pads of a window as ONNX has them, None where one is no number, or negative."""
    flat = [lo for lo, _ in pairs] + [hi for _, hi in pairs]
    return None if any(isinstance(p, Dim) or p < 0 for p in flat) else flat


@emits(ops.conv)
def conv(w: Writer, x: Value, weight: Value, *, win: Window, bias: Value | None = None) -> Any:
    pads = written_pads(win.pads)
    source: Any = x
    if pads is None:  # a pad that only run time knows, or that crops
        pads = [0] * 2 * len(win.pads)
        source = w.add("Pad", x, w.ints([0, 0, *(lo for lo, _ in win.pads), 0, 0, *(hi for _, hi in win.pads)]))
    kernel = weight.shape[2:]
    return w.add(
        "Conv", source, weight, bias, strides=win.strides, pads=pads, dilations=win.dilations, group=win.group,
        kernel_shape=None if any(isinstance(k, Dim) for k in kernel) else kernel,
    )  # fmt: skip


@emits(ops.conv_input_grad)
def conv_transpose(w: Writer, g: Value, weight: Value, *, win: Window, size: Shape, bias: Value | None = None) -> Any:
    """ConvTranspose: pads as the window has them; what the size has more is `output_padding`."""
    kernel = weight.shape[2:]
    pads: list[tuple[int, int]] = []
    more: list[int] = []
    for n, o, k, s, d, (lo, hi) in zip(size, g.shape[2:], kernel, win.strides, win.dilations, win.pads, strict=True):
        whole: Any = (o - 1) * s + d * (k - 1) + 1
        high: Any = whole - lo - n  # what is cut off at the end
        if isinstance(high, Dim) or isinstance(lo, Dim) or lo < 0:
            return None
        kept = hi if isinstance(hi, int) and hi >= max(high, 0) else max(high, 0)
        pads.append((lo, kept))
        more.append(kept - high)
    return w.add(
        "ConvTranspose", g, weight, bias, strides=win.strides, pads=written_pads(pads), dilations=win.dilations,
        group=win.group, output_padding=more if any(more) else None, kernel_shape=kernel,
    )  # fmt: skip


BIASED[ops.conv] = conv
BIASED[ops.conv_input_grad] = conv_transpose
