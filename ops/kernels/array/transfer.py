"""Copies between host and device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dims import Shape
from ...transfer import transfer
from ...types import Array


@transfer.kernel("array", half="native")
def _transfer(x: Array, *, device: str, source: str, wait: bool = True) -> Array:
    if device == "cpu":
        return x if isinstance(x, np.ndarray) else _to_host(x, wait)
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2])):
        if isinstance(x, np.ndarray):
            # What is not pinned is copied to pinned memory first, and may change from then on.
            return cupy.asarray(x, blocking=wait and is_pinned(x))
        return x.copy()


def _to_host(x: Array, wait: bool) -> Array:
    with x.device:
        return x.get() if wait else x.get(out=pinned(x.shape, x.dtype), blocking=False)


def pinned(shape: Shape, dtype: Any) -> Array:
    """Return a NumPy array of page-locked memory, from CuPy's pool, with whatever is in it."""
    import cupy

    dtype = np.dtype(dtype)
    memory = cupy.cuda.alloc_pinned_memory(max(1, math.prod(shape) * dtype.itemsize))
    return np.ndarray(shape, dtype, buffer=memory)


def is_pinned(array: Array) -> bool:
    """Whether a NumPy array lies in page-locked memory that CuPy has handed out."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    owner = owner.obj if isinstance(owner, memoryview) else owner
    return type(owner).__name__ == "PinnedMemoryPointer"
