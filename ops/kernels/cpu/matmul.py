"""Products of matrices as contractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...dims import Dim, DimLike, Shape, product
from ...matmul import parts
from . import bfloat16
from .contraction import Tap, contraction
from .copy import Copy, copy_kernel, emit_copy
from .kernel import kernel
from .lowering import Epilogue, Ref, Site, lowers
from .operand import Operand, row_major
from .tiling import panel_vectors
from .walk import Axis, bits, chunks_of

TYPES = (np.dtype(np.float32), np.dtype(np.float64))

_ROWS = (64, 32, 16)
"""So many rows of a left side that lies column by column are gathered, the first number that divides them."""
_WIDE, _DEEP = 64, 64
"""The fewest columns, and the least depth, where that pays."""
_AT_ONCE = 32
"""So deep a part of all groups is gathered at once: its lines are read, and those of a group written, in order."""


@lowers("matmul", fuses=True, rounds=lambda site: reads_rounded(site))
def lower_matmul(site: Site) -> bool:
    """Lower a product of matrices: weights are packed beforehand, other right sides by a kernel."""
    a_type, b_type = site.types
    if not (a_type.dtype == b_type.dtype == site.result.dtype and np.dtype(a_type.dtype) in TYPES):
        return False
    row, column = a_type.ndim == 1, b_type.ndim == 1
    depth = a_type.shape[-1]
    columns: DimLike = 1 if column else b_type.shape[-1]
    if depth == 0 or columns == 0 or b_type.shape[0 if column else -2] != depth:
        return False
    pairs = rounds(site)
    out = site.result.shape
    batch = out if row and column else out[:-1] if row or column else out[:-2]
    grid = (*batch, 1 if row else a_type.shape[-2])
    b_batch = () if column else b_type.shape[:-2]
    shared = all(d == 1 for d in b_batch)
    if pairs:
        a, a_view = bfloat16.read_rows(site)
        depth = -(-depth // 2)
    else:
        a = site.read(0)
        a_view = a.operand
    a_view = a_view.reshaped((1, *a_view.shape), (0, *a_view.strides)) if row else a_view
    a_view = a_view.broadcast_to((*grid, depth))
    if not pairs and not row and not column and crosses(a_view, columns):
        return _turned(site, a, a_view)
    vectors = panel_vectors(site.target, a_type.dtype, grid, columns, depth, a_view.strides[:-1])
    width = vectors * site.target.lanes(a_type.dtype)
    perm = (0, 1) if column else range(b_type.ndim)
    if pairs:
        b, steps = _paired(site, width, len(b_batch), column)
    else:
        b, steps = _packed(site, 1, width, perm, len(b_batch), column)
    y = site.write(0, order="plain")
    k = contraction(
        "matmul bf16" if pairs else "matmul", site.target, dtype=a_type.dtype, columns=columns, depth=depth, taps=(),
        a_start=0, grid=grid, a_grid=a_view.strides[:-1], a_depth=a_view.strides[-1],
        b_grid=(0,) * len(grid) if shared else (*_broadcast(b_batch, steps[: len(b_batch)], batch), 0), b_depth=width,
        b_panel=width * depth, output=_rows(y.operand, row, column), vectors=vectors,
        epilogue=_rows_of_epilogue(site.epilogue, row, column), products="bfloat16" if pairs else "floats",
    )  # fmt: skip
    site.call(k, [a, b, y, *site.epilogue_refs])
    return True


def crosses(a: Operand, columns: DimLike) -> bool:
    """Whether rows of the left side lie beside each other, so that it pays to gather those of a tile beforehand."""
    rows, depth = a.shape[-2:]
    long = isinstance(depth, Dim) or depth >= _DEEP
    wide = not isinstance(columns, Dim) and columns >= _WIDE
    return a.strides[-2] == 1 and not isinstance(rows, Dim) and rows % _ROWS[-1] == 0 and rows > 0 and long and wide


def _turned(site: Site, a: Ref, view: Operand) -> bool:
    """Lower a product whose left side lies column by column: its rows are gathered in groups, beside each other."""
    *batch, rows, depth = view.shape
    size = next(n for n in _ROWS if rows % n == 0)
    b_type = site.types[1]
    b_batch, columns, dtype = b_type.shape[:-2], b_type.shape[-1], view.dtype
    groups = rows // size
    gathered = site.temporary(dtype, (*batch, groups, depth, size))
    shape = (*batch, groups, size, depth)
    of, to = _grouped(view, size).strides, gathered.operand.strides
    target = gathered.operand.transposed((*range(len(batch) + 1), len(batch) + 2, len(batch) + 1))
    axes = tuple(Axis(n, (of[i], to[i]), 1) for i, n in enumerate(batch))
    inner = Axis(groups, (of[-3], to[-3])), Axis(depth, (of[-1], to[-2]), _AT_ONCE), Axis(size, (1, 1))
    gather = Copy(bits(dtype), (*axes, *inner), (0, 0), "rows")
    moved = 2 * view.size * np.dtype(dtype).itemsize
    chunks = chunks_of(gather.axes)
    site.call(kernel("gather rows", emit_copy, gather, operands=2, chunks=chunks, bytes=moved), [a, gathered])
    grid = shape[:-1]
    vectors = panel_vectors(site.target, dtype, grid[-1:], columns, depth)
    width = vectors * site.target.lanes(dtype)
    b, steps = _packed(site, 1, width, range(b_type.ndim), len(b_batch))
    shared = all(d == 1 for d in b_batch)
    y = site.write(0, order="plain")
    epilogue = site.epilogue
    if epilogue is not None:
        epilogue = replace(epilogue, operands=tuple(_grouped(o, size) for o in epilogue.operands))
    k = contraction(
        "matmul", site.target, dtype=dtype, columns=columns, depth=depth, taps=(), a_start=0, grid=grid,
        a_grid=target.strides[:-1], a_depth=target.strides[-1],
        b_grid=(0,) * len(grid) if shared else (*_broadcast(b_batch, steps[: len(b_batch)], tuple(batch)), 0, 0),
        b_depth=width, b_panel=width * depth, output=_grouped(y.operand, size), vectors=vectors, epilogue=epilogue,
        flat=True,
    )  # fmt: skip
    site.call(k, [gathered, b, y, *site.epilogue_refs])
    return True


def _grouped(o: Operand, size: int) -> Operand:
    """Return an operand with its last axis but one split into groups of rows."""
    *batch, rows, columns = o.shape
    *outer, step, inner = o.strides
    return o.reshaped((*batch, rows // size, size, columns), (*outer, size * step, step, inner))


def rounds(site: Site) -> bool:
    """Whether a product multiplies bfloat16."""
    return bfloat16.wanted(site)


def reads_rounded(site: Site) -> bool:
    """Whether a product reads its left side as bfloat16."""
    depth = site.types[0].shape[-1]
    return rounds(site) and isinstance(depth, int) and depth % 2 == 0


def _paired(site: Site, width: int, batches: int, column: bool) -> tuple[Ref, Shape]:
    """Return the right side as panels of pairs (*batch, panels, words, width), and the strides of those axes."""
    t = site.types[1]
    depth, columns = t.shape[0 if column else -2], 1 if column else t.shape[-1]

    def packing(s: Shape) -> bfloat16.Columns:
        return bfloat16.Columns(t.shape[:batches], (), depth, columns, (*s, 1) if column else s, width)

    ref = bfloat16.pack_columns(site, 1, packing, "plain")
    return ref, row_major(packing(row_major(t.shape)).shape)


def _rows(o: Operand, row: bool, column: bool) -> Operand:
    """Return an operand of the result's shape with the axes (batch, m, n), of which vectors lack some."""
    if column:
        o = o.reshaped((*o.shape, 1), (*o.strides, 1))
    if row:
        o = o.reshaped((*o.shape[:-1], 1, o.shape[-1]), (*o.strides[:-1], 0, o.strides[-1]))
    return o


def _rows_of_epilogue(epilogue: Epilogue | None, row: bool, column: bool) -> Epilogue | None:
    if epilogue is None:
        return None
    return replace(epilogue, operands=tuple(_rows(o, row, column) for o in epilogue.operands))


def _broadcast(shape: Shape, strides: Shape, to: Shape) -> Shape:
    """Return the strides of leading axes broadcast to a shape."""
    return Operand(np.dtype(np.float32), shape, strides).broadcast_to(to).strides


def _packed(
    site: Site, i: int, width: int, perm: Sequence[int], batches: int, column: bool = False
) -> tuple[Ref, Shape]:
    """Return an input as panels (*batch, panels, *inner, width), and the strides of those axes.

    Columns behind the last are anything: nothing that is kept depends on them.

    Args:
        site: where.
        i: which input.
        width: of a panel.
        perm: its axes as (*batch, *inner, columns).
        batches: how many batch axes there are.
        column: whether the axis of columns is to be put in behind the last.
    """
    t = site.types[i]
    full = (*t.shape, 1) if column else t.shape
    shape = tuple(full[p] for p in perm)
    batch, inner, columns = shape[:batches], shape[batches:-1], shape[-1]
    panels = (columns + (width - 1)) // width
    strides = row_major((*batch, panels, *inner, width))
    fixed = site.hoistable(i)
    source = site.origin(i) if fixed else site.read(i)
    s = (*source.operand.strides, 1) if column else source.operand.strides
    s = tuple(s[p] for p in perm)
    kernels = []
    whole = columns // width
    for first, count, size in ((0, whole, width), (whole, 1, columns - whole * width)):
        if count != 0 and size != 0:
            a = Operand(t.dtype, (*batch, count, *inner, size), (*s[:batches], width * s[-1], *s[batches:]))
            b = Operand(t.dtype, a.shape, strides)
            kernels.append(copy_kernel(a, b, first * (width * s[-1]), first * strides[batches], name="pack matrix"))
    if fixed:
        return site.prepared(source, kernels, t.dtype, (*batch, panels, *inner, width)), strides
    target = site.temporary(t.dtype, (*batch, panels, *inner, width))
    for k in kernels:
        site.call(k, [source, target])
    return target, strides


@lowers("einsum", fuses=True)
def lower_einsum(site: Site) -> bool:
    """Lower a sum over the common labels of two inputs whose output ends with a label that one of them has alone."""
    terms, out = parts(site.attrs["equation"])
    if len(terms) != 2 or site.attrs.get("sizes") or not out:
        return False
    if not all(t.dtype == site.result.dtype and np.dtype(t.dtype) in TYPES for t in site.types):
        return False
    if any(len(set(labels)) != len(labels) for labels in (*terms, out)):
        return False
    left, right = (0, 1) if out[-1] in terms[1] else (1, 0)
    a_labels, b_labels = terms[left], terms[right]
    size = dict(zip(a_labels, site.types[left].shape, strict=True))
    if any(size.get(c, n) != n for c, n in zip(b_labels, site.types[right].shape, strict=True)):
        return False
    size.update(zip(b_labels, site.types[right].shape, strict=True))
    inner = [c for c in a_labels if c in b_labels and c not in out]
    batch = [c for c in out[:-1] if c in b_labels]
    rows = [c for c in out[:-1] if c not in b_labels]
    if not inner or any(c not in a_labels for c in (*batch, *rows)) or out[-1] in a_labels or 0 in size.values():
        return False
    if len(inner) + len(batch) + len(rows) != len(a_labels) or len(inner) + len(batch) + 1 != len(b_labels):
        return False
    a = site.read(left)
    a_stride = dict(zip(a_labels, a.operand.strides, strict=True))
    inner.sort(key=lambda c: a_stride[c] == 1)
    grid = tuple(size[c] for c in (*batch, *rows)) or (1,)
    columns, deep = size[out[-1]], product(size[c] for c in inner)
    a_grid = tuple(a_stride[c] for c in (*batch, *rows)) or (0,)
    vectors = panel_vectors(site.target, site.result.dtype, grid, columns, deep, a_grid)
    width = vectors * site.target.lanes(site.result.dtype)
    perm = [b_labels.index(c) for c in (*batch, *inner, out[-1])]
    b, steps = _packed(site, right, width, perm, len(batch))
    y = site.write(0, order="plain")
    order = [out.index(c) for c in (*batch, *rows, out[-1])]
    views = [o.transposed(order) for o in (y.operand, *(site.epilogue.operands if site.epilogue else ()))]
    if len(order) == 1:
        views = [o.reshaped((1, *o.shape), (0, *o.strides)) for o in views]
    b_steps = steps[len(batch) + 1 : -1]
    k = contraction(
        "einsum", site.target, dtype=site.result.dtype, columns=columns, depth=size[inner[-1]],
        taps=[Tap(size[c], a_stride[c], s) for c, s in zip(inner[:-1], b_steps[:-1], strict=True)], a_start=0,
        grid=grid, a_grid=a_grid, a_depth=a_stride[inner[-1]],
        b_grid=(*steps[: len(batch)], *(0,) * len(rows)) or (0,), b_depth=b_steps[-1],
        b_panel=steps[len(batch)], output=views[0],
        epilogue=replace(site.epilogue, operands=tuple(views[1:])) if site.epilogue else None, vectors=vectors,
    )  # fmt: skip
    site.call(k, [a, b, y, *site.epilogue_refs])
    return True
