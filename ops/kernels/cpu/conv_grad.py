"""The two adjoints of convolution as contractions.

The input's gradient (ConvTranspose) falls apart into one correlation of stride 1 for each residue of the output's place
by the strides; each uses the taps that meet it. The weights' gradient sums over images and pixels: its rows are
filters, its columns the input's channels (and neighbours within a kernel row), read in place.

Source: Dumoulin & Visin 2016; Shi et al. 2016 (sub-pixel convolution).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...dims import Dim, DimLike, Shape, product
from ...types import TensorType
from ...window import Window
from .contraction import Tap, contraction
from .conv import TYPES, Axis, correlate, input_halo, packed_filters, wins
from .copy import copy_kernel
from .depthwise import lower_depthwise_input_grad, lower_depthwise_weight_grad
from .lowering import Demand, Site, lowers
from .operand import Halo, Operand, packed, row_major
from .sum_parts import sum_parts
from .tiling import best_tile, panel_vectors
from .winograd import TRAINED, lower_winograd_input_grad, suits
from .winograd_grad import grad_wins, lower_winograd_weight_grad

_CHUNKS, _TILES = 16, 96
"""So many chunks are wanted, each with sums of so many tiles."""
_BLOCK = 384
"""About how many pixels of a tile are summed before the next tile's turn comes."""


@dataclass(frozen=True)
class Phase:
    """The outputs of one residue along one axis, and which taps meet them: first, step, number."""

    axis: Axis
    taps: tuple[int, int, int]


def phases(size: DimLike, kernel: int, stride: int, dilation: int, low: int) -> list[Phase]:
    """Return the phases of an axis of a transposed convolution.

    Output i and tap k meet input o where i + low = o * stride + k * dilation.
    """
    found = []
    for residue in range(stride):
        taps = [k for k in range(kernel) if (k * dilation - residue) % stride == 0]
        place = (residue - low) % stride
        count = (size - place + stride - 1) // stride if isinstance(size, Dim) else -(-(size - place) // stride)
        if not isinstance(count, Dim) and count <= 0:
            continue
        first = (place + low - residue) // stride
        if not taps:
            found.append(Phase(Axis(count, 1, 0, 1, 0, place, stride), (0, 1, 0)))
            continue
        period = stride // math.gcd(stride, dilation)
        # The last tap comes first, so that the input is met in its order.
        last = taps[-1]
        axis = Axis(
            count, 1, first - (last * dilation - residue) // stride, period * dilation // stride, len(taps), place,
            stride,
        )  # fmt: skip
        found.append(Phase(axis, (last, -period, len(taps))))
    return found


def _all_phases(w: TensorType, win: Window, size: Shape) -> list[list[Phase]]:
    return [
        phases(n, int(k), s, d, int(lo))
        for n, k, s, d, (lo, _) in zip(size, w.shape[2:], win.strides, win.dilations, win.pads, strict=True)
    ]


def output_halo(g: TensorType, w: TensorType, win: Window, size: Shape) -> Halo | None:
    """Return the zeros that are read around the gradient of the output, or None where only run time knows them."""
    pads: list[tuple[int, int]] = []
    for n, axis in zip(g.shape[2:], _all_phases(w, win, size), strict=True):
        low = high = 0
        for p in axis:
            if p.axis.taps:
                behind = p.axis.first + (p.axis.out - 1) + p.axis.step * (p.axis.taps - 1) - (n - 1)
                if isinstance(behind, Dim) or isinstance(p.axis.first, Dim):
                    return None
                low, high = max(low, -p.axis.first), max(high, behind)
        pads.append((low, high))
    return ((0, 0), (0, 0), *pads)


def _fits(g: Any, w: Any, result: TensorType, win: Window) -> bool:
    fixed = (g.shape[1], *w.shape, win.group, *(p for pads in win.pads for p in pads))
    return (
        g.dtype == w.dtype == result.dtype
        and g.dtype in TYPES
        and 3 <= g.ndim <= 5
        and all(isinstance(d, int) for d in fixed)
        and 0 not in (*fixed[: 2 + len(w.shape)],)
    )


def _input_demand(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    g, w = types
    if not _fits(g, w, g, attrs["win"]):
        return {}
    halo = output_halo(g, w, attrs["win"], attrs["size"])
    return {} if halo is None else {0: Demand("channels_last", halo)}


@lowers("conv_input_grad", demand=_input_demand, fuses=True)
def lower_conv_input_grad(site: Site) -> bool:
    """Lower a transposed convolution."""
    g_type, w_type = site.types
    win: Window = site.attrs["win"]
    if not _fits(g_type, w_type, site.result, win):
        return False
    size = site.attrs["size"]
    halo = output_halo(g_type, w_type, win, size)
    if halo is None:
        return False
    if win.group > 1 and lower_depthwise_input_grad(site):
        return True
    winograd = not site.exact and suits(g_type, w_type, win, size) and wins(site, w_type.shape[0], w_type.shape[1])
    if winograd and lower_winograd_input_grad(site):
        return True
    g = site.read(0, order="channels_last", halo=halo)
    y = site.write(0, order="channels_last")
    for parts in itertools.product(*_all_phases(w_type, win, size)):
        taps = [p.taps for p in parts]
        filters = partial(packed_filters, site, win.group, taps, turned=True)
        axes = [p.axis for p in parts]
        correlate(
            site, "conv_input_grad", g, filters, y, axes, groups=win.group, channels=int(w_type.shape[0]) // win.group
        )
    return True


def _weight_demand(types: Sequence[Any], attrs: dict[str, Any]) -> dict[int, Demand]:
    _, x = types
    halo = _weight_halo(x, attrs["kernel"], attrs["win"])
    return {} if halo is None else {0: Demand("channels_last"), 1: Demand("channels_last", halo)}


def _weight_halo(x: TensorType, kernel: Shape, win: Window) -> Halo | None:
    return input_halo(x, kernel, win) if all(isinstance(k, int) for k in kernel) else None


@lowers("conv_weight_grad", demand=_weight_demand)
def lower_conv_weight_grad(site: Site) -> bool:
    """Lower the gradient of a convolution's weights."""
    g_type, x_type = site.types
    win: Window = site.attrs["win"]
    halo = _weight_halo(x_type, site.attrs["kernel"], win)
    fixed = (g_type.shape[1], x_type.shape[1], win.group)
    if halo is None or not all(isinstance(d, int) for d in fixed) or 0 in (*fixed, *site.attrs["kernel"]):
        return False
    if not (g_type.dtype == x_type.dtype == site.result.dtype and g_type.dtype in TYPES and 3 <= g_type.ndim <= 5):
        return False
    if win.group > 1 and lower_depthwise_weight_grad(site):
        return True
    n, images = g_type.shape[2:], x_type.shape[0]
    batch = images if isinstance(images, int) else TRAINED
    filters, channels = int(g_type.shape[1]), int(x_type.shape[1])
    faster = len(n) == 2 and grad_wins(site.target, g_type.dtype, filters, channels, n[0], n[1], batch)
    if faster and not site.exact and lower_winograd_weight_grad(site):
        return True
    _direct(site, win, halo)
    return True


def _direct(site: Site, win: Window, halo: Halo) -> None:
    """Call the kernels of the gradient of a convolution's weights as a contraction over images and pixels.

    Its rows are filters and its columns the input's channels, and neighbours within a kernel row, or the other way
    round where that leaves fewer lanes of vectors empty.
    """
    g = site.read(0, order="channels_last")
    x = site.read(1, order="channels_last", halo=halo)
    y = site.write(0, order="plain")
    groups, dtype, lanes = win.group, site.result.dtype, site.target.lanes(site.result.dtype)
    kernel = tuple(int(k) for k in site.attrs["kernel"])
    filters, channels = (int(o.shape[1]) // groups for o in (g.operand, x.operand))
    gs, xs = g.operand.strides, x.operand.strides
    joined = win.dilations[-1] == 1 and xs[-1] == channels and kernel[-1] > 1
    across = channels * kernel[-1] if joined else channels
    outer = kernel[:-1] if joined else kernel
    x_steps = tuple(s * st for s, st in zip(win.strides, xs[2:], strict=True))
    start: DimLike = 0
    for (lo, _), s in zip(win.pads, xs[2:], strict=True):
        start = start - lo * s
    # Sums run over images, then pixels.
    sizes, steps = (g.operand.shape[0], *g.operand.shape[2:]), ((gs[0], *gs[2:]), (xs[0], *x_steps))
    loops = [Tap(n, a, b) for n, a, b in zip(sizes, *steps, strict=True)]
    deep = product(sizes)
    taps = math.prod(outer)
    turned = (
        1.1 * best_tile(site.target, lanes, (*outer, across)[-2:], filters, deep)[0] * math.prod(outer[:-1])
        < best_tile(site.target, lanes, (filters,), across, deep)[0] * taps
    )  # fmt: skip
    plain = all(k == 1 for k in kernel)
    rows, columns = (across, filters) if turned else (filters, across)
    x_grid = tuple(d * s for d, s in zip(win.dilations, xs[2:], strict=True))[: len(outer)]
    a_grid: tuple[DimLike, ...] = (filters, *(0,) * len(outer), 1)
    b_grid: tuple[DimLike, ...] = (channels, *x_grid, 0)
    a_start: DimLike = 0
    b_start: DimLike = start
    if turned:
        loops = [Tap(t.count, t.b, t.a) for t in loops]
        a_grid, b_grid = (channels, *x_grid, 1), (filters, *(0,) * len(outer), 0)
        a_start, b_start = start, 0
    loops, hoisted = _hoisted(loops)
    depth = loops.pop()
    shape = (groups, *outer, rows, columns)
    vectors = panel_vectors(site.target, dtype, shape[-3:-1] if turned and outer else shape[-2:-1], columns, deep)
    width = vectors * lanes
    size = math.prod(shape)
    share, loops = _shared(loops[:hoisted], loops, size, groups * taps * -(-rows // 14) * -(-columns // width))
    parts = int(share.count)
    target = y if plain and not turned else site.temporary(dtype, shape)
    sums = target if parts == 1 else site.temporary(dtype, (parts, *shape))
    k = contraction(
        "conv_weight_grad", site.target, dtype=dtype, columns=columns, depth=depth.count, taps=loops, a_start=a_start,
        b_start=b_start, grid=(parts, *shape[:-1]), a_grid=(share.a, *a_grid), a_depth=depth.a,
        b_grid=(share.b, *b_grid), b_depth=depth.b, b_panel=width, b_whole=columns % width == 0,
        output=packed(dtype, (parts, *shape)), epilogue=None, vectors=vectors, hoisted=hoisted, streams=True,
    )  # fmt: skip
    site.call(k, [x, g, sums] if turned else [g, x, sums])
    if parts > 1:
        site.call(sum_parts(dtype, parts, size), [sums, target])
    if target is not y:
        apart = row_major(shape)
        of_filter, of_channel = (1, columns) if turned else (columns, 1)
        inner = (*apart[1 : 1 + len(outer)], *((channels * of_channel,) if joined else ()))
        source = Operand(dtype, (groups, filters, channels, *kernel), (apart[0], of_filter, of_channel, *inner))
        o = y.operand.strides
        to = Operand(dtype, source.shape, (filters * o[0], *o))
        site.call(copy_kernel(source, to, name="unpack filters"), [target, y])


def _hoisted(loops: Sequence[Tap]) -> tuple[list[Tap], int]:
    """Return loops with neighbours joined, and how many of the outer ones are too many steps for one tile's turn."""
    joined: list[Tap] = []
    for t in loops:
        before = joined[-1] if joined else None
        fixed = before is not None and isinstance(t.count, int) and isinstance(before.count, int)
        if before is not None and fixed and (before.a, before.b) == (t.a * t.count, t.b * t.count):
            joined[-1] = Tap(before.count * t.count, t.a, t.b)
        else:
            joined.append(t)
    inside = 1
    for i in reversed(range(len(joined))):
        t = joined[i]
        if isinstance(t.count, Dim):
            return joined, i + 1 if i < len(joined) - 1 else 0
        if inside * t.count > _BLOCK:
            share = max(d for d in range(1, t.count + 1) if t.count % d == 0 and inside * d <= max(inside, _BLOCK))
            if inside * share < _BLOCK // 8:
                return joined, i
            parts = [Tap(t.count // share, t.a * share, t.b * share), Tap(share, t.a, t.b)]
            if i < len(joined) - 1 and share == 1:
                parts = [t]
            return [*joined[:i], *parts, *joined[i + 1 :]], i + 1
        inside *= t.count
    return joined, 0


def _shared(hoisted: Sequence[Tap], loops: Sequence[Tap], size: int, tiles: int) -> tuple[Tap, list[Tap]]:
    """Split a loop over pixels between chunks, where there are too few tiles of weights for that.

    Args:
        hoisted: loops that may be split.
        loops: all loops.
        size: the number of weights.
        tiles: into how many tiles they fall.

    Returns:
        How many parts and how far apart they are, and the loops of a part.
    """
    wanted = min(32.0, _CHUNKS * _TILES / tiles)
    pixels = math.prod(t.count if isinstance(t.count, int) else 1 for t in loops) * _BLOCK
    best = (abs(math.log(wanted)) if wanted > 1 else 0.0, 1, 0)
    for i, t in enumerate(hoisted):
        for d in range(2, t.count + 1) if isinstance(t.count, int) and wanted > 1 else ():
            if t.count % d == 0 and d * size <= pixels * 64:
                best = min(best, (abs(math.log(wanted / d)), d, i))
    _, parts, at = best
    if parts == 1:
        return Tap(1, 0, 0), list(loops)
    t = loops[at]
    assert isinstance(t.count, int)
    part = Tap(t.count // parts, t.a, t.b)
    return Tap(parts, t.a * part.count, t.b * part.count), [*loops[:at], part, *loops[at + 1 :]]
