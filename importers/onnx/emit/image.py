"""Emitters: images as a whole, and what moves nothing between devices."""

from __future__ import annotations

from typing import Any

from ....ops import spatial, transfer
from ....ops.dims import Shape
from ....ops.window import Window
from ....runtime.graph.graph import Value
from .conv import written_pads
from .registry import emits
from .writer import Writer


@emits(spatial.col2im)
def col2im(w: Writer, x: Value, *, size: Shape, block: Shape, win: Window) -> Any:
    pads = written_pads(win.pads)
    if pads is None:
        return None
    return w.add("Col2Im", x, w.ints(size), w.ints(block), strides=win.strides, pads=pads, dilations=win.dilations)


@emits(spatial.center_crop_pad)
def center_crop_pad(w: Writer, x: Value, *, shape: Shape, axes: tuple[int, ...]) -> Any:
    return w.add("CenterCropPad", x, w.ints(shape), axes=axes)


@emits(transfer.transfer)
def moved(w: Writer, x: Value, *, device: str, source: str) -> Any:
    return w.name(x)
