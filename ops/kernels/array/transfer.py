"""Copies between host and device."""

from __future__ import annotations

from ...transfer import transfer
from ...types import Array


@transfer.kernel("array", half="native")
def _transfer(x: Array, *, device: str, source: str) -> Array:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return x.get() if hasattr(x, "get") else x
    import cupy

    with cupy.cuda.Device(int(index or 0)):
        return cupy.asarray(x)
