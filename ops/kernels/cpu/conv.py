"""Convolutions as contractions: rows are output pixels, columns output channels; the depth is a run of input elements.

With channels last, the elements of one kernel row that a pixel sees, (kw, channels), lie behind each other where the
dilation is 1 and pixels touch. Padding is a halo of zeros around the input, so that no pixel is a special case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...dims import Dim, DimLike, Shape
from ...types import TensorType
from ...window import Window
from . import bfloat16
from .contraction import Tap, contraction
from .copy import copy_kernel
from .depthwise import lower_depthwise
from .lowering import Demand, Epilogue, Ref, Site, lowers
from .operand import Halo, Operand, row_major
from .tiling import panel_vectors
from .winograd import lower_winograd, suits, winograd_wins

TYPES = (np.dtype(np.float32), np.dtype(np.float64))


def input_halo(x: TensorType, kernel: Shape, win: Window) -> Halo | None:
    """Return the zeros that a convolution reads around its input, or None where they are known only at run time."""
    pads: list[tuple[int, int]] = []
    for size, k, s, d, (lo, hi) in zip(x.shape[2:], kernel, win.strides, win.dilations, win.pads, strict=True):
        if isinstance(lo, Dim) or isinstance(hi, Dim):
            return None
        if isinstance(size, int):
            out = (size + lo + hi - d * (int(k) - 1) - 1) // s + 1
            hi = (out - 1) * s + d * (int(k) - 1) + 1 - lo - size
        pads.append((max(lo, 0), max(hi, 0)))
    return ((0, 0), (0, 0), *pads)


def _demand(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    x, w = types
    halo = input_halo(x, w.shape[2:], attrs["win"]) if _static(w.shape[2:]) else None
    return {} if halo is None else {0: Demand("channels_last", halo)}


def _static(sizes: Sequence[DimLike]) -> bool:
    return all(isinstance(d, int) for d in sizes)


def supported(x: Any, w: Any, result: TensorType, win: Window) -> bool:
    """Whether a convolution's types and sizes have a compiled kernel."""
    return (
        x.dtype == w.dtype == result.dtype
        and np.dtype(x.dtype) in TYPES
        and 3 <= x.ndim <= 5
        and _static((x.shape[1], *w.shape, win.group))
        and 0 not in (x.shape[1], *w.shape)
        and input_halo(x, w.shape[2:], win) is not None
    )


@lowers("conv", demand=_demand, fuses=True, rounds=lambda site: reads_rounded(site))
def lower_conv(site: Site) -> bool:
    """Lower a convolution: depthwise, Winograd or direct."""
    x, w = site.types
    win: Window = site.attrs["win"]
    if not supported(x, w, site.result, win):
        return False
    if win.group > 1 and lower_depthwise(site):
        return True
    if rounds(site):
        return lower_rounded(site)
    if not site.exact and suits(x, w, win, site.result.shape[2:]) and wins(site, w.shape[1], w.shape[0]):
        return lower_winograd(site)
    return lower_direct(site)


def wins(site: Site, channels: Any, filters: Any, gain: float = 1) -> bool:
    """Whether Winograd is estimated to be faster than a direct convolution, `gain` times as fast as one of float32."""
    n, _, height, width = site.result.shape
    batch = n if isinstance(n, int) else 1
    return winograd_wins(site.target, site.result.dtype, int(channels), int(filters), height, width, batch, gain)


def lower_direct(site: Site) -> bool:
    """Lower a convolution to one contraction."""
    x_type, w_type = site.types
    win: Window = site.attrs["win"]
    kernel = tuple(int(k) for k in w_type.shape[2:])
    halo = input_halo(x_type, kernel, win)
    assert halo is not None
    x = site.read(0, order="channels_last", halo=halo)
    axes = _axes(site, win, kernel)
    taps = [(0, 1, k) for k in kernel]
    filters = partial(packed_filters, site, win.group, taps)
    y = site.write(0, order="channels_last")
    correlate(site, "conv", x, filters, y, axes, groups=win.group, channels=int(w_type.shape[1]))
    return True


def _axes(site: Site, win: Window, kernel: Sequence[int]) -> list[Axis]:
    return [
        Axis(out, s, -lo, d, k)
        for out, s, (lo, _), d, k in zip(
            site.result.shape[2:], win.strides, win.pads, win.dilations, kernel, strict=True
        )
    ]


def rounds(site: Site) -> bool:
    """Whether a convolution multiplies bfloat16: wanted, possible and faster than Winograd."""
    x, w = site.types
    win: Window = site.attrs["win"]
    if not bfloat16.wanted(site) or not site.hoistable(1) or not supported(x, w, site.result, win) or win.group != 1:
        return False
    winograd = not site.exact and suits(x, w, win, site.result.shape[2:])
    return not (winograd and wins(site, w.shape[1], w.shape[0], bfloat16.GAIN))


def reads_rounded(site: Site) -> bool:
    """Whether a convolution reads its input as bfloat16."""
    return rounds(site) and int(site.types[0].shape[1]) % 2 == 0


def lower_rounded(site: Site) -> bool:
    """Lower a convolution to one contraction of pairs of bfloat16, along the channels."""
    x_type, w_type = site.types
    win: Window = site.attrs["win"]
    kernel = tuple(int(k) for k in w_type.shape[2:])
    halo = input_halo(x_type, kernel, win)
    assert halo is not None
    x, pairs, start = bfloat16.read_pixels(site, halo)

    count, channels = int(w_type.shape[0]), int(w_type.shape[1])

    def filters(width: int) -> Ref:
        return bfloat16.pack_columns(
            site, 1, lambda s: bfloat16.Columns((), kernel, channels, count, (*s[2:], s[1], s[0]), width)
        )

    y = site.write(0, order="channels_last")
    correlate(
        site, "conv bf16", x, filters, y, _axes(site, win, kernel), groups=1, channels=-(-channels // 2),
        pairs=pairs, start=start,
    )  # fmt: skip
    return True


@dataclass(frozen=True)
class Axis:
    """A spatial axis of a correlation: output o and tap t meet element `first + stride * o + step * t` of the input.

    Attributes:
        out: how many outputs.
        taps: how many taps.
        place: the first output's place in the tensor that is written.
        apart: how far apart outputs lie there.
    """

    out: DimLike
    stride: int
    first: DimLike
    step: int
    taps: int
    place: int = 0
    apart: int = 1


def correlate(
    site: Site, name: str, x: Ref, filters: Callable[[int], Ref], y: Ref, axes: Sequence[Axis], *, groups: int,
    channels: int, pairs: Operand | None = None, start: DimLike = 0,
) -> None:  # fmt: skip
    """Call the kernel of a correlation over channels-last images.

    Args:
        site: where.
        name: of the kernel.
        x: the input (N, groups * channels, *S).
        filters: gives (groups, panels, *taps, channels, width) for a width.
        y: the output.
        axes: spatial ones.
        groups: of channels.
        channels: of the input, a group.
        pairs: the input as pairs of bfloat16, of which there are `channels`; None for floats.
        start: the input's first element or pair.
    """
    o, out = pairs or x.operand, site.result.shape
    steps = o.strides[2:]
    columns = int(out[1]) // groups
    deep = channels * math.prod(a.taps for a in axes)
    grid = (groups, out[0], *(a.out for a in axes))
    a_grid = (channels, o.strides[0], *(a.stride * s for a, s in zip(axes, steps, strict=True)))
    vectors = panel_vectors(site.target, o.dtype, grid, columns, deep, a_grid)
    width = vectors * site.target.lanes(o.dtype)
    taps: list[Tap] = []
    rest = channels * width
    for a, s in zip(reversed(axes), reversed(steps), strict=True):
        taps.insert(0, Tap(a.taps, a.step * s, rest))
        rest *= a.taps
    depth = channels
    if axes[-1].step == 1 and steps[-1] == channels and axes[-1].taps:
        depth *= axes[-1].taps
        taps.pop()
    for a, s in zip(axes, steps, strict=True):
        start = start + a.first * s
    operands = [y.operand, *(site.epilogue.operands if site.epilogue else ())]
    rows = [_sliced(rows_of(p, groups), axes) for p in operands]
    k = contraction(
        name, site.target, dtype=o.dtype, columns=columns, depth=depth, taps=taps, a_start=start, grid=grid,
        a_grid=a_grid, a_depth=1, b_grid=(-(-columns // width) * deep * width, *(0,) * (len(grid) - 1)), b_depth=width,
        b_panel=deep * width, output=rows[0][0], vectors=vectors, starts=tuple(r[1] for r in rows),
        epilogue=replace(site.epilogue, operands=tuple(r[0] for r in rows[1:])) if site.epilogue else None,
        products="bfloat16" if pairs else "floats",
    )  # fmt: skip
    site.call(k, [x, filters(width), y, *site.epilogue_refs])


def _sliced(o: Operand, axes: Sequence[Axis]) -> tuple[Operand, DimLike]:
    """Return the places of an operand (groups, N, *S, F / groups) that axes write, and the first of them."""
    strides = o.strides[2:-1]
    start: DimLike = 0
    for a, s in zip(axes, strides, strict=True):
        start = start + a.place * s
    apart = (s * a.apart for a, s in zip(axes, strides, strict=True))
    shape = (*o.shape[:2], *(a.out for a in axes), o.shape[-1])
    return replace(o, shape=shape, strides=(*o.strides[:2], *apart, o.strides[-1]), halo=()), start


def rows_of(o: Operand, groups: int) -> Operand:
    """Return an operand (N, F, *S) as the contraction's output (groups, N, *S, F / groups)."""
    rank = o.ndim
    last = o.transposed((0, *range(2, rank), 1))
    filters = int(last.shape[-1]) // groups
    step = last.strides[-1]
    view = last.reshaped((groups, *last.shape[:-1], filters), (filters * step, *last.strides[:-1], step))
    return replace(view, slack=o.slack if groups == 1 else 0)


def rows_of_epilogue(epilogue: Epilogue | None, groups: int) -> Epilogue | None:
    """Return an epilogue whose operands have the axes of `rows_of`."""
    if epilogue is None:
        return None
    return replace(epilogue, operands=tuple(rows_of(o, groups) for o in epilogue.operands))


def packed_filters(
    site: Site, groups: int, taps: Sequence[tuple[int, int, int]], width: int, *, turned: bool = False
) -> Ref:
    """Return filters (F, C, *K) as (groups, panels, *taps, C, width): panels of `width` filters, the last filled up.

    Args:
        site: whose second input they are.
        groups: of filters.
        taps: first, step and number, an axis.
        width: of a panel.
        turned: whether C and the filters of a group change places.
    """
    t = site.types[1]
    sizes = (int(t.shape[0]) // groups, int(t.shape[1]))
    columns, depth = reversed(sizes) if turned else sizes
    panels = -(-columns // width)
    counts = tuple(n for _, _, n in taps)
    shape = (groups, panels, *counts, depth, width)
    fixed = site.hoistable(1)
    source = site.origin(1) if fixed else site.read(1)
    s = source.operand.strides
    across, along = (s[1], s[0]) if turned else (s[0], s[1])
    start: DimLike = 0
    for (first, _, _), step in zip(taps, s[2:], strict=True):
        start = start + first * step
    inner = tuple(step * x for (_, step, _), x in zip(taps, s[2:], strict=True))
    steps = row_major(shape)
    whole = columns // width
    kernels = []
    # Columns behind the last stay as they are: nothing that is kept depends on them.
    for first, count, size in ((0, whole, width), (whole, 1, columns - whole * width)):
        if count and size and depth and 0 not in counts:
            a = Operand(
                t.dtype, (groups, count, *counts, depth, size),
                (sizes[0] * s[0], width * across, *inner, along, across),
            )  # fmt: skip
            b = Operand(t.dtype, a.shape, steps)
            kernels.append(copy_kernel(a, b, start + first * width * across, first * steps[1], name="pack filters"))
    if fixed:
        return site.prepared(source, kernels, t.dtype, shape)
    target = site.temporary(t.dtype, shape)
    for k in kernels:
        site.call(k, [source, target])
    return target
