"""Convolution with one filter a channel, over channels last: no sum over channels, so vectors along them.

A tile of R x P output pixels of one vector of channels stays in registers while the taps pass by; rows of a tile share
the input rows that they both see.

Axes: N batch, C channel, H and W output rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import DimLike, Shape, product
from ...window import Window
from .emitter import Emitter, V
from .epilogue import Tail
from .kernel import kernel
from .lanes import Piece, blocks, planar, vectors
from .lowering import Epilogue, Ref, Site
from .operand import Halo, Operand
from .target import Target

_CHUNK_FLOPS = 1_500_000
_BLOCK = 8


@dataclass(frozen=True)
class _Sliding:
    """A sum over taps for each pixel of a grid in the output.

    Attributes:
        x: what is read.
        y: what is written.
        shape: rows and columns of the grid.
        origin: where in y it begins.
        spread: the distance of its pixels.
        taps: for each row and column of the window, which row of the weights (taps, C) it is.
        strides: how far the window moves in x from pixel to pixel.
        low: how far before the first element of x it begins.
        dilations: the distance of its taps.
        rows: of the grid that a chunk has.
        tile: rows and columns that registers hold.
    """

    x: Operand
    y: Operand
    shape: tuple[DimLike, DimLike]
    origin: tuple[int, int]
    spread: tuple[int, int]
    taps: tuple[tuple[int, ...], ...]
    strides: tuple[int, int]
    low: tuple[int, int]
    dilations: tuple[int, int]
    rows: int
    tile: tuple[int, int]
    epilogue: Epilogue | None


def is_depthwise(x: Any, w: Any, win: Window) -> bool:
    """Whether a convolution of these types has one filter a channel and kernels for it."""
    fixed = (*w.shape, x.shape[1], *(p for pads in win.pads for p in pads))
    return (
        x.dtype == w.dtype
        and x.dtype in (np.float32, np.float64)
        and x.ndim in (3, 4)
        and all(isinstance(d, int) for d in fixed)
        and win.group == x.shape[1] == w.shape[0]
        and w.shape[1] == 1
    )


def window_halo(size: Shape, kernel: Shape, win: Window) -> Halo:
    """Return the zeros around (N, C, *size) that a window with static pads sees."""
    found = []
    for n, k, s, d, (low, high) in zip(size, kernel, win.strides, win.dilations, win.pads, strict=True):
        if isinstance(n, int):
            reach = d * (int(k) - 1) + 1
            high = (n + int(low) + int(high) - reach) // s * s + reach - int(low) - n
        found.append((max(int(low), 0), max(int(high), 0)))
    return ((0, 0), (0, 0), *found)


def lower_depthwise(site: Site) -> bool:
    """Lower `conv` with one filter a channel."""
    x, w, win = site.types[0], site.types[1], site.attrs["win"]
    if not is_depthwise(x, w, win):
        return False
    source = site.read(0, order="channels_last", halo=window_halo(x.shape[2:], w.shape[2:], win))
    weights, out = _taps_first(site, 1, w), site.write(order="channels_last")
    (kh, kw), strides, dilations, low = _pairs(w.shape[2:], win)
    taps = tuple(tuple(range(i * kw, (i + 1) * kw)) for i in range(kh))
    height, width = planar(out.operand).shape[2:]
    grid = (height, width), (0, 0), (1, 1)
    _slide(site, "depthwise", (source, weights, out), grid, taps, strides, low, dilations)
    return True


def lower_depthwise_input_grad(site: Site) -> bool:
    """Lower `conv_input_grad` with one filter a channel: for each residue of the strides, a sum over its taps."""
    g, w, win, size = site.types[0], site.types[1], site.attrs["win"], site.attrs["size"]
    strided = any(s > 1 for s in win.strides)
    if not is_depthwise(g, w, win) or (strided and any(d > 1 for d in win.dilations)):
        return False
    if not all(isinstance(d, int) for d in (*size, *g.shape[2:])):
        return False
    kernels, strides, dilations, low = _pairs(w.shape[2:], win)
    sizes, outs = ((*(int(d) for d in sizes), 1)[:2] for sizes in (size, g.shape[2:]))
    residues = [
        [_residue(p, *axis) for p in range(axis[1]) if p < axis[4]]
        for axis in zip(kernels, strides, dilations, low, sizes, outs, strict=True)
    ]
    halo = tuple((max(0, *(r.low for r in axis)), max(0, *(r.high for r in axis))) for axis in residues)
    source = site.read(0, order="channels_last", halo=((0, 0), (0, 0), *halo[: len(size)]))
    weights, out = _taps_first(site, 1, w), site.write(order="channels_last")
    for a in residues[0]:
        for b in residues[1]:
            taps = tuple(tuple(i * kernels[1] + j for j in b.taps) for i in a.taps)
            grid = (a.count, b.count), (a.origin, b.origin), strides
            _slide(
                site, "depthwise input gradient", (source, weights, out), grid, taps, (1, 1), (a.low, b.low), dilations
            )
    return True


@dataclass(frozen=True)
class _Residue:
    """The inputs origin, origin + stride, ... along one axis: how they sum over outputs.

    Attributes:
        origin: the first.
        count: how many there are.
        taps: which taps meet them, in the order of the outputs.
        low: how far before the first output the window of the first of them begins.
        high: how far behind the last output that of the last ends.
    """

    origin: int
    count: int
    taps: tuple[int, ...]
    low: int
    high: int


def _residue(origin: int, kernel: int, stride: int, dilation: int, low: int, size: int, out: int) -> _Residue:
    first = (origin + low) % stride
    taps = tuple(reversed(range(first, kernel, stride)))
    base, count = (origin + low - first) // stride, -(-(size - origin) // stride)
    if not taps:
        return _Residue(origin, count, taps, 0, 0)
    return _Residue(origin, count, taps, (len(taps) - 1) * dilation - base, base + count - out)


def _pairs(kernel: Any, win: Window) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return kernel, strides, dilations and low pads with two axes."""
    flat = len(kernel) == 1

    def pair(values: Any, one: int) -> tuple[int, int]:
        first, second = (*(int(v) for v in values), one) if flat else (int(v) for v in values)
        return first, second

    return pair(kernel, 1), pair(win.strides, 1), pair(win.dilations, 1), pair([lo for lo, _ in win.pads], 0)


_Grid = tuple[tuple[DimLike, DimLike], tuple[int, int], tuple[int, int]]
"""Shape, origin and spread as in `_Sliding`."""


def _slide(
    site: Site, name: str, refs: Sequence[Ref], grid: _Grid, taps: tuple[tuple[int, ...], ...],
    strides: tuple[int, int], low: tuple[int, int], dilations: tuple[int, int],
) -> None:  # fmt: skip
    x, y = planar(refs[0].operand), planar(refs[2].operand)
    epilogue = site.epilogue
    if epilogue is not None:
        epilogue = Epilogue(epilogue.expression, tuple(planar(o) for o in epilogue.operands), epilogue.dtype)
    (shape, origin, spread), count = grid, len(taps) * len(taps[0]) if taps else 0
    height, width = shape
    tile = _tile(site.target, count, strides, width)
    rows = _rows(int(y.shape[1]), width, max(1, count), tile[0], height)
    p = _Sliding(x, y, shape, origin, spread, taps, strides, low, dilations, rows, tile, epilogue)
    refs = [*refs, *site.epilogue_refs]
    elements = product((*y.shape[:2], height, width))
    call = kernel(
        name, emit_depthwise, p, operands=len(refs), chunks=y.shape[0] * _blocks(height, rows),
        flops=2 * count * elements, bytes=y.dtype.itemsize * (product(x.shape) + elements),
    )  # fmt: skip
    site.call(call, refs)


def _blocks(size: DimLike, step: int) -> DimLike:
    return -(-size // step)


def _tile(target: Target, taps: int, strides: tuple[int, ...], width: DimLike) -> tuple[int, int]:
    """Return how many rows and columns of output a tile has."""
    if width == 1:
        return (8 if target.registers >= 32 else 4), 1
    rows = 2 if taps <= 9 and strides[0] == 1 else 1
    most = (7 if rows == 2 else 8) if target.registers >= 32 else (4 if rows == 2 else 6)
    if not isinstance(width, int):
        return rows, min(most, 4)
    tiles = -(-width // most)
    return rows, next((c for c in range(most, most // 2, -1) if width % c == 0), -(-width // tiles))


def _rows(channels: int, width: DimLike, taps: int, step: int, height: DimLike) -> int:
    """Return how many rows a chunk has: a multiple of the tile's."""
    one = 2 * channels * taps * (width if isinstance(width, int) else 32)
    rows = max(1, _CHUNK_FLOPS // max(1, one))
    if isinstance(height, int):
        rows = min(rows, height)
    return -(-rows // step) * step


def emit_depthwise(e: Emitter, p: _Sliding) -> None:
    """Write the kernel; operands x, w (taps, C), y, those of the epilogue."""
    n, channels, (height, width) = p.y.shape[0], int(p.y.shape[1]), p.shape
    dtype, tile_rows, tile_columns = p.x.dtype, *p.tile
    image, block = e.unravel(e.chunk, (n, e.ceil_div(height, p.rows)))
    first = e.mul(block, p.rows)
    last = e.min(e.add(first, p.rows), height) if height != p.rows else e.index(height)
    start = e.add(e.mul(image, p.x.strides[0]), e.mul(-p.low[0], p.x.strides[2]), e.mul(-p.low[1], p.x.strides[3]))
    x = e.at(e.pointer(0), start, dtype)
    reach = max(0, (tile_rows - 1) * p.strides[0] + (len(p.taps) - 1) * p.dilations[0] + 1)
    steps = [e.mul(i, p.x.strides[2]) for i in range(reach)]
    row_step = e.mul(p.strides[0], p.x.strides[2])
    column_step = e.mul(p.strides[1], p.x.strides[3])

    def columns(row: V, tile: tuple[int, int], low: Any, high: Any, pieces: Callable[[], Iterator[Piece]]) -> None:
        with e.loop(low, high, tile[1]) as loop:
            at = e.at(x, e.add(e.mul(row, row_step), e.mul(loop.index, column_step)), dtype)
            there = [e.add(e.mul(i, by), o) for i, by, o in zip((row, loop.index), p.spread, p.origin, strict=True)]
            tail = Tail(e, p.y, e.pointer(2), p.epilogue, 3, (image, 0, *there), 1)
            for c, lanes, mask in pieces():
                source, weights = e.at(at, c, dtype), e.at(e.pointer(1), c, dtype)
                _one_tile(e, p, tile, steps, source, weights, channels, tail.moved(1, c), lanes, mask)

    def rows(low: V, high: V, count: int) -> None:
        whole = e.mul(e.div(width, tile_columns), tile_columns)
        with e.loop(low, high, count) as loop:
            for _, pieces in blocks(e, dtype, channels, _BLOCK):
                columns(loop.index, (count, tile_columns), 0, whole, pieces)
                if not isinstance(width, int):
                    columns(loop.index, (count, 1), whole, width, pieces)
                elif width % tile_columns:
                    columns(loop.index, (count, width % tile_columns), whole, width, pieces)

    if tile_rows == 1 or (isinstance(height, int) and height % tile_rows == 0):
        rows(first, last, tile_rows)
        return
    whole = e.add(first, e.mul(e.div(e.sub(last, first), tile_rows), tile_rows))
    rows(first, whole, tile_rows)
    rows(whole, last, 1)


def _one_tile(
    e: Emitter, p: _Sliding, tile: tuple[int, int], steps: list[V], x: V, w: V, channels: int, tail: Tail, lanes: int,
    mask: V,
) -> None:  # fmt: skip
    dtype, rows, columns = p.x.dtype, *tile
    kh, kw = len(p.taps), len(p.taps[0]) if p.taps else 0
    (sh, sw), (dh, dw) = p.strides, p.dilations
    sums = {(r, c): e.zero(dtype, lanes) for r in range(rows) for c in range(columns)}
    hold = kh * kw + rows * columns + 3 <= e.target.registers
    held: dict[int, list[V]] = {}

    def weights(tap_row: int) -> list[V]:
        if tap_row not in held or not hold:
            held[tap_row] = [e.load(e.at(w, t * channels, dtype), dtype, lanes, mask) for t in p.taps[tap_row]]
        return held[tap_row]

    def met(i: int, count: int, step: int, taps: int, apart: int) -> list[tuple[int, int]]:
        """Return (pixel, tap) that meet element i of what the tile sees along an axis."""
        offsets = [(pixel, i - pixel * step) for pixel in range(count)]
        return [(pixel, o // apart) for pixel, o in offsets if o % apart == 0 and 0 <= o < taps * apart]

    for i, step in enumerate(steps[: (rows - 1) * sh + (kh - 1) * dh + 1]):
        across = met(i, rows, sh, kh, dh)
        row = e.at(x, step, dtype)
        taps = {ky: weights(ky) for _, ky in across}
        for j in range((columns - 1) * sw + (kw - 1) * dw + 1 if across else 0):
            along = met(j, columns, sw, kw, dw)
            if not along:
                continue
            value = e.load(e.at(row, e.mul(j, p.x.strides[3]), dtype), dtype, lanes, mask)
            for r, ky in across:
                for c, kx in along:
                    sums[r, c] = e.fma(value, taps[ky][kx], sums[r, c])
    for (r, c), value in sums.items():
        tail.store(value, (0, 0, r * p.spread[0], c * p.spread[1]), lanes, mask)


# weights -------------------------------------------------------------------------------------------------------------


def _taps_first(site: Site, i: int, w: Any) -> Ref:
    """Return the weights (C, 1, *K) as (*K, C)."""
    channels, taps = int(w.shape[0]), int(product(w.shape[2:]))
    made = kernel("depthwise weights", emit_taps_first, (w.dtype, channels, taps), operands=2)
    if site.hoistable(i):
        return site.prepared(site.origin(i, plain=True), [made], w.dtype, (taps, channels))
    source, out = site.read(i, order="plain"), site.temporary(w.dtype, (taps, channels))
    site.call(made, [source, out])
    return out


def emit_taps_first(e: Emitter, p: tuple[Any, int, int]) -> None:
    """Write the transposition (C, K) -> (K, C)."""
    dtype, channels, taps = p
    with e.loop(0, channels) as loop:
        source = e.at(e.pointer(0), e.mul(loop.index, taps), dtype)
        out = e.at(e.pointer(1), loop.index, dtype)
        for t in range(taps):
            e.store(e.load(e.at(source, t, dtype), dtype), e.at(out, t * channels, dtype), dtype)


# gradient of the weights ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _WeightGrad:
    g: Operand
    x: Operand
    kernel: tuple[int, int]
    strides: tuple[int, int]
    low: tuple[int, int]
    dilations: tuple[int, int]
    rows: int


def lower_depthwise_weight_grad(site: Site) -> bool:
    """Lower `conv_weight_grad` with one filter a channel: sums over rows of images, then their sums in order."""
    g, x, win, w = site.types[0], site.types[1], site.attrs["win"], site.result
    if not is_depthwise(x, w, win):
        return False
    upstream = site.read(0, order="channels_last")
    source = site.read(1, order="channels_last", halo=window_halo(x.shape[2:], w.shape[2:], win))
    out = site.write(order="plain")
    sizes, strides, dilations, low = _pairs(w.shape[2:], win)
    taps, channels = sizes[0] * sizes[1], int(x.shape[1])
    gs, xs = planar(upstream.operand), planar(source.operand)
    rows = _rows(channels, gs.shape[3], taps, 1, gs.shape[2])
    parts = gs.shape[0] * _blocks(gs.shape[2], rows)
    partial = site.temporary(x.dtype, (parts, taps, channels))
    p = _WeightGrad(gs, xs, sizes, strides, low, dilations, rows)
    moved = x.dtype.itemsize * (product(g.shape) + product(x.shape))
    site.call(
        kernel(
            "depthwise weight gradient", emit_weight_grad, p, operands=3, chunks=parts,
            flops=2 * taps * product(g.shape), bytes=moved,
        ),
        [upstream, source, partial],
    )  # fmt: skip
    lanes = site.target.lanes(x.dtype)
    site.call(
        kernel(
            "depthwise weight gradient sums", emit_partial_sums, (x.dtype, parts, taps, channels), operands=2,
            chunks=_blocks(channels, _SUMMED * lanes),
        ),
        [partial, out],
    )  # fmt: skip
    return True


def emit_weight_grad(e: Emitter, p: _WeightGrad) -> None:
    """Write the partial sums; operands g, x, sums (parts, taps, C)."""
    n, channels, height, width = p.g.shape
    dtype, (kh, kw) = p.g.dtype, p.kernel
    image, block = e.unravel(e.chunk, (n, e.ceil_div(height, p.rows)))
    first = e.mul(block, p.rows)
    last = e.min(e.add(first, p.rows), height)
    start = e.add(e.mul(image, p.x.strides[0]), e.mul(-p.low[0], p.x.strides[2]), e.mul(-p.low[1], p.x.strides[3]))
    g, x = e.at(e.pointer(0), e.mul(image, p.g.strides[0]), dtype), e.at(e.pointer(1), start, dtype)
    out = e.at(e.pointer(2), e.mul(e.chunk, kh * kw * int(channels)), dtype)
    together = max(1, min(kh, (e.target.registers - 4) // kw))
    tile = 4 if width != 1 else 1

    def pixels(sums: list[V], at: V, there: V, ky: range, count: int, lanes: int, mask: V) -> list[V]:
        sums = list(sums)
        values = [e.load(e.at(at, e.mul(i, p.g.strides[3]), dtype), dtype, lanes, mask) for i in range(count)]
        for a, i in enumerate(ky):
            row = e.at(there, e.mul(i * p.dilations[0], p.x.strides[2]), dtype)
            seen: dict[int, V] = {}
            for c in range(count):
                for j in range(kw):
                    column = c * p.strides[1] + j * p.dilations[1]
                    if column not in seen:
                        place = e.at(row, e.mul(column, p.x.strides[3]), dtype)
                        seen[column] = e.load(place, dtype, lanes, mask)
                    sums[a * kw + j] = e.fma(values[c], seen[column], sums[a * kw + j])
        return sums

    for c, lanes, mask in vectors(e, dtype, int(channels)):
        for low in range(0, kh, together):
            ky = range(low, min(low + together, kh))
            with e.loop(first, last, carry=[e.zero(dtype, lanes)] * (len(ky) * kw)) as rows:
                at = e.at(e.at(g, c, dtype), e.mul(rows.index, p.g.strides[2]), dtype)
                there = e.at(e.at(x, c, dtype), e.mul(e.mul(rows.index, p.strides[0]), p.x.strides[2]), dtype)
                whole, sums = e.mul(e.div(width, tile), tile), rows.carried
                for begin, end, count in ((0, whole, tile), (whole, width, 1)):
                    with e.loop(begin, end, count, carry=sums) as columns:
                        here = e.at(at, e.mul(columns.index, p.g.strides[3]), dtype)
                        step = e.mul(columns.index, e.mul(p.strides[1], p.x.strides[3]))
                        columns.next(pixels(columns.carried, here, e.at(there, step, dtype), ky, count, lanes, mask))
                    sums = columns.results
                rows.next(sums)
            for t, value in enumerate(rows.results):
                e.store(value, e.at(e.at(out, c, dtype), (low * kw + t) * int(channels), dtype), dtype, mask)


_SUMMED = 4


def emit_partial_sums(e: Emitter, p: tuple[Any, DimLike, int, int]) -> None:
    """Write the sums over the parts; operands (parts, taps, C), (C, taps). A chunk is some vectors of channels."""
    dtype, parts, taps, channels = p
    size = _SUMMED * e.target.lanes(dtype)
    low = e.mul(e.chunk, size)
    with e.loop(low, e.min(e.add(low, size), channels)) as c, e.loop(0, taps) as t:
        source = e.at(e.pointer(0), e.add(e.mul(t.index, channels), c.index), dtype)
        with e.loop(0, parts, carry=[e.zero(dtype)]) as loop:
            value = e.load(e.at(source, e.mul(loop.index, taps * channels), dtype), dtype)
            loop.next([e.b.fadd(loop.carried[0], value)])
        e.store(loop.results[0], e.at(e.pointer(1), e.add(e.mul(c.index, taps), t.index), dtype), dtype)
