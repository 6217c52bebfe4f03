"""How kernels walk over windows: one kernel position (tap) at a time, or one block of the batch at a time.

No kernel pads: a tap meets only the outputs whose window has it inside the input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ...window import Window

Slices: TypeAlias = tuple[slice, ...]

PATCH_BYTES = 1 << 25
"""The largest patch matrix that is built at once."""

CACHE_BYTES = 1 << 18
"""What a loop of several passes works on at once, to stay in a core's cache."""


def axis_taps(k: int, n: int, out: int, stride: int, low: int, dilation: int) -> list[tuple[int, slice, slice]]:
    """Return (tap, outputs, inputs) along one axis of `n` inputs; taps that meet no input are left out."""
    found = []
    for tap in range(k):
        shift = tap * dilation - low
        first = max(0, -(shift // stride))
        last = min(out, (n - 1 - shift) // stride + 1)
        if first < last:
            start = first * stride + shift
            found.append((tap, slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)))
    return found


def taps(
    kernel: Sequence[Any], win: Window, size: Sequence[Any], out: Sequence[Any], first_row: int = 0
) -> Iterator[tuple[tuple[int, ...], Slices, Slices]]:
    """Yield (kernel index, output slices, input slices) for each kernel position that meets the input.

    Args:
        kernel: its sizes.
        win: the window; its high pads are implied by `out`.
        size: the input's spatial sizes.
        out: the output's spatial sizes, of which the first is `rows` where only some rows are computed.
        first_row: the first of those rows.
    """
    axes = []
    for axis, (k, n, o, s, (low, _), d) in enumerate(
        zip(kernel, size, out, win.strides, win.pads, win.dilations, strict=True)
    ):
        shift = first_row * s if axis == 0 else 0
        axes.append(axis_taps(int(k), n, o, s, int(low) - shift, d))
    for position in itertools.product(*axes):
        yield tuple(p[0] for p in position), tuple(p[1] for p in position), tuple(p[2] for p in position)


def pieces(images: int, out: Sequence[Any], bytes_each: int) -> Iterator[tuple[slice, int, int]]:
    """Yield (images, first row, end row) such that patches of `bytes_each` an output fit in `PATCH_BYTES`."""
    image = max(1, bytes_each * math.prod(out))
    if image <= PATCH_BYTES:
        step = PATCH_BYTES // image
        for i in range(0, images, step):
            yield slice(i, min(i + step, images)), 0, out[0]
        return
    rows = max(1, PATCH_BYTES // max(1, bytes_each * math.prod(out[1:])))
    for i in range(images):
        for r in range(0, out[0], rows):
            yield slice(i, i + 1), r, min(r + rows, out[0])


def blocks(images: int, channels: int, plane_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Yield (images, channels) whose planes fit in `CACHE_BYTES`."""
    plane = max(1, plane_bytes)
    if plane * channels <= CACHE_BYTES:
        step = CACHE_BYTES // max(1, plane * channels)
        for i in range(0, images, step):
            yield slice(i, min(i + step, images)), slice(None)
        return
    step = max(1, CACHE_BYTES // plane)
    for i in range(images):
        for c in range(0, channels, step):
            yield slice(i, i + 1), slice(c, min(c + step, channels))
