"""The register-tiled contraction: convolutions, products of matrices and their gradients are all this kernel.

    C[g, n] = sum over taps t and k of  A[a(g) + a(t) + k * a_depth] * B[b(g) + b(t) + panel(n) + k * b_depth + n]

where g runs over a grid of rows (images and pixels, or batches and rows of a matrix). A tile of P rows and V vectors of
columns stays in registers while k runs; each element of A is broadcast, each vector of B is used P times. The last tile
along a grid axis is shifted back and overlaps its neighbour: what is computed twice has the same bits, and so an output
must not share memory with an input, those of the epilogue included.

Source: Goto & van de Geijn 2008 (the register tile); Georganas et al. 2018 (direct convolutions as small products).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...dims import Dim, DimLike, Shape, product
from ...types import DType
from .byte_products import Products
from .contraction_code import Contraction, Tap, counts, emit, over
from .kernel import Kernel, kernel
from .lowering import Epilogue
from .operand import Operand
from .target import Target
from .tiling import NEAR, Chunking, guess, merged, pick_chunking, pick_tile, room

__all__ = ["Tap", "contraction"]

_BLOCK = 1024
"""A deeper innermost loop than this is split."""


def contraction(
    name: str, target: Target, *, dtype: DType, columns: DimLike, depth: DimLike, taps: Sequence[Tap], a_start: DimLike,
    grid: Shape, a_grid: Shape, a_depth: DimLike, b_grid: Shape, b_depth: DimLike, b_panel: DimLike, output: Operand,
    epilogue: Epilogue | None, vectors: int, b_whole: bool = True, starts: tuple[DimLike, ...] = (),
    b_start: DimLike = 0, hoisted: int | None = None, products: Products = "floats", streams: bool = False,
    flat: bool = False,
) -> Kernel:  # fmt: skip
    """Return the kernel; its operands are A, B, C and those of the epilogue.

    Args:
        name: of the kernel.
        target: what CPU it is for.
        dtype: of the elements.
        columns: how many.
        depth: how often the innermost loop runs.
        taps: the loops around it.
        a_start: A's first element.
        grid: sizes of the axes of rows.
        a_grid: how far A moves along them.
        a_depth: how far A moves each time.
        b_grid: how far B moves along the axes of rows.
        b_depth: how far B moves each time.
        b_panel: how far apart panels lie.
        output: how C lies, (*grid, columns).
        epilogue: its operands have these axes too.
        vectors: of a panel of B, from `tiling.panel_vectors`.
        b_whole: whether B may be read behind the last column.
        starts: first elements of C and the epilogue's operands; () for 0.
        b_start: B's first element.
        hoisted: how many taps are loops around all tiles of a chunk; None to choose.
        products: what is multiplied.
        streams: whether what the next step of the hoisted loops reads is asked for; rows of A are neighbours.
        flat: whether a tile has rows of the last axis alone.
    """
    operands = [output, *(epilogue.operands if epilogue else ())]
    grid, (a_grid, b_grid, *rest) = merged(grid, a_grid, b_grid, *(o.strides[:-1] for o in operands))
    if b_grid[-1] != 0:  # rows of one tile share their B
        grid, a_grid, b_grid, rest = (*grid, 1), (*a_grid, 0), (*b_grid, 0), [(*r, 0) for r in rest]
    slack = output.slack
    shaped = [
        replace(o, shape=(*grid, columns), strides=(*s, o.strides[-1]), halo=(), slack=0)
        for o, s in zip(operands, rest, strict=True)
    ]
    output = replace(shaped[0], slack=slack)
    if epilogue:
        epilogue = replace(epilogue, operands=tuple(shaped[1:]))
    if not hoisted:
        taps = tuple(t for t in taps if t.count != 1)
    lanes = target.lanes(dtype)
    deep = product((depth, *(t.count for t in taps)))
    tall = not flat and len(grid) > 1 and b_grid[-2] == 0
    tile = pick_tile(target, lanes, grid if tall else grid[-1:], columns, deep, vectors, ways=room(dtype, a_grid[-1]))
    itemsize = np.dtype(dtype).itemsize
    block = depth_block(depth) if not taps and not any(isinstance(d, Dim) for d in (a_depth, b_depth)) else 0
    if block:
        assert isinstance(depth, int)
        taps, depth = (Tap(depth // block, block * a_depth, block * b_depth),), block
    if hoisted is None:
        hoisted = int(bool(block) or (bool(taps) and guess(deep) * vectors * lanes * itemsize > NEAR // 2))
    params = Contraction(
        np.dtype(dtype), grid, columns, depth, tuple(taps), a_start, a_grid, a_depth, b_grid, b_depth,
        b_panel, b_whole, output, epilogue, tile, Chunking(1, 1, 1),
        starts or (0,) * len(shaped), b_start, hoisted, products, streams and hoisted > 0,
    )  # fmt: skip
    params = replace(params, chunking=_chunking(params, lanes))
    lines, tiles, panels = counts(params, lanes)
    c = params.chunking
    chunks = over(lines, c.lines) * over(tiles, c.tiles) * over(panels, c.panels)
    slots = c.lines * c.tiles * c.panels if hoisted else 1
    scratch = slots * tile.rows * tile.columns * tile.vectors * lanes * itemsize
    work = 2 * product(grid) * columns * deep * (2 if products == "bfloat16" else 1)
    moved = itemsize * (product(grid) * columns + product(grid) * depth + deep * columns)
    return kernel(
        name, emit, params, operands=3 + len(shaped) - 1, chunks=chunks, scratch=scratch, flops=work, bytes=moved
    )


def depth_block(depth: DimLike) -> int:
    """Return into pieces of which length a deep loop splits, 0 for none."""
    if isinstance(depth, Dim) or depth <= _BLOCK:
        return 0
    for pieces in range(2, 2 * -(-depth // _BLOCK)):
        if depth % pieces == 0 and depth // pieces <= _BLOCK:
            return depth // pieces
    return 0


def _chunking(c: Contraction, lanes: int) -> Chunking:
    lines, tiles, panels = (max(1, guess(d)) for d in counts(c, lanes))
    open_ended = isinstance(c.grid[-1], Dim)
    return pick_chunking(
        c.tile, lanes, np.dtype(c.dtype).itemsize, lines=lines, tiles=max(tiles, 8) if open_ended else tiles,
        panels=max(panels, 4) if isinstance(c.columns, Dim) else panels,
        deep=max(1, guess(product((c.depth, *(t.count for t in c.taps))))),
        block=max(1, guess(product((c.depth, *(t.count for t in c.taps[c.hoisted :]))))),
        seen=1 if c.hoisted else 2 * len(c.taps) + 1, batched=any(b != 0 for b in c.b_grid), hoisted=c.hoisted > 0,
        open_ended=open_ended,
    )  # fmt: skip
