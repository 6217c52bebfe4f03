"""Reductions: sums, products, extremes and norms over any axes of tensors that lie in any way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import Dim, DimLike, Shape, product
from ...expr import Var, exp, log
from ...reduce import positive
from ...types import TensorType
from .emitter import Emitter, V, scalar_type
from .expression import evaluate
from .kernel import kernel
from .lowering import Ref, Site, lowers
from .operand import Operand
from .row import CHAIN, Lanes, Row, walk
from .rows import Rows, arrange, arrange_map, cut, few_and_long, restricted, spread, spread_epilogue, strided

FOLDS = {"sum": "add", "mean": "add", "l2_norm": "add", "prod": "mul", "max": "max", "min": "min"}

PIECE = 1 << 14
"""About how many elements a piece of a long row has."""

LONG = 4 * PIECE
"""From how many elements on a row is cut, where there are few."""


@dataclass(frozen=True)
class Reduction:
    """A reduction over rows.

    Attributes:
        rows: how to walk; operands are the input and the output.
        fold: how terms combine.
        squares: whether terms are squares.
        root: whether the result is the square root of what was folded.
        divisor: what it is divided by; 0 for nothing.
        chain: how many additions may follow one another without compensation.
    """

    rows: Rows
    fold: str
    squares: bool = False
    root: bool = False
    divisor: DimLike = 0
    chain: int = CHAIN


def supported(*types: Any) -> bool:
    """Whether all are tensors of one type, float32 or float64, of known rank, without an axis of size 0."""
    first = types[0]
    return all(
        isinstance(t, TensorType)
        and t.known_shape is not None
        and t.dtype == first.dtype
        and t.dtype in (np.dtype(np.float32), np.dtype(np.float64))
        and 0 not in t.known_shape
        for t in types
    )


def number(e: Emitter, d: DimLike, dtype: Any) -> V:
    """Return a size as a float."""
    kind = scalar_type(dtype)
    return e.b.sitofp(e.dim(d), kind) if isinstance(d, Dim) else e.constant(float(d), kind)


def emit_reduction(e: Emitter, p: Reduction) -> None:
    """Write a reduction."""
    dtype = p.rows.operands[0].dtype
    divisor = number(e, p.divisor, dtype) if p.divisor != 0 else None

    def body(row: Row) -> None:
        def term(x: V) -> Sequence[V]:
            return [e.b.fmul(x, x)] if p.squares else [x]

        (total,) = row.fold((p.fold,), term, (0,), dtype=dtype, unroll=8, chain=p.chain)
        if divisor is not None:
            total = row.each(lambda v: e.b.fdiv(v, e.splat(divisor, row.state_lanes)), total)
        if p.root:
            total = row.each(lambda v: e.call("llvm.sqrt", v.type, [v]), total)
        row.put(1, total, epilogue=True)

    walk(e, p.rows, body)


def call_rows(
    site: Site, name: str, emit: Any, params: Any, rows: Rows, refs: Sequence[Ref], *, flops: int = 1
) -> None:
    """Add a kernel over rows; the epilogue's operands are passed where the rows have one."""
    tail = list(site.epilogue_refs) if rows.epilogue is not None else []
    size = np.dtype(rows.operands[0].dtype).itemsize
    site.call(
        kernel(
            name, emit, params, operands=len(refs) + len(tail), chunks=rows.chunks, scratch=rows.scratch_bytes,
            flops=rows.elements * flops, bytes=rows.elements * size,
        ),
        [*refs, *tail],
    )  # fmt: skip


def lower_reduction(site: Site, axes: Sequence[int], where: Sequence[int]) -> bool:
    """Lower a fold over axes: as it is, or pieces of long rows first and then what they gave.

    Args:
        site: where.
        axes: that are reduced.
        where: for each axis of the output, which axis of the input it is.
    """
    t = site.types[0]
    integers = t.dtype in (np.dtype(np.int32), np.dtype(np.int64)) and site.op in (
        "sum",
        "sum_to",
        "prod",
        "max",
        "min",
    )
    if not (supported(t) or (integers and 0 not in t.shape)):
        return False
    name = "sum" if site.op == "sum_to" else site.op
    shape, ndim = t.shape, t.ndim
    x, out = site.read(0), site.write()
    y, epilogue = spread(out.operand, where, ndim), spread_epilogue(site.epilogue, where, ndim)
    rows = arrange(site.target, t.dtype, shape, [a in axes for a in range(ndim)], [x.operand, y], epilogue)
    fold, squares, root = FOLDS[name], name == "l2_norm", name == "l2_norm"
    divisor = product(shape[a] for a in axes) if name == "mean" else 0
    if not few_and_long(rows, LONG):
        call_rows(site, name, emit_reduction, Reduction(rows, fold, squares, root, divisor), rows, [x, out])
        return True
    pieces, blocks = cut(rows, t.dtype, PIECE // (rows.lanes * rows.width if rows.columns else 1))
    axes = [*blocks, *(a for a in range(len(pieces.shape)) if not pieces.inner[a] and a not in blocks)]
    part, part_shape = strided(pieces, t.dtype, axes)
    parts = site.temporary(t.dtype, part_shape)
    first = replace(pieces, operands=(pieces.operands[0], part), epilogue=None)
    call_rows(site, f"{name} of pieces", emit_reduction, Reduction(first, fold, squares), first, [x, parts])
    second = together(site, pieces, axes, len(blocks), [part, pieces.operands[1]])
    call_rows(site, name, emit_reduction, Reduction(second, fold, False, root, divisor, 1), second, [parts, out])
    return True


def together(site: Site, pieces: Rows, axes: Sequence[int], blocks: int, operands: Sequence[Operand]) -> Rows:
    """Return how to walk over what pieces gave, the first `blocks` of the axes inside of a row."""
    epilogue = pieces.epilogue
    if epilogue is not None:
        epilogue = replace(epilogue, operands=tuple(restricted(o, axes) for o in epilogue.operands))
    shape = tuple(pieces.shape[a] for a in axes)
    inner = [i < blocks for i in range(len(axes))]
    dtype = operands[0].dtype
    return arrange(site.target, dtype, shape, inner, [restricted(o, axes) for o in operands], epilogue)


def _output_axes(axes: Sequence[int], ndim: int, keepdims: bool) -> list[int]:
    return [a for a in range(ndim) if keepdims or a not in axes]


@lowers(*FOLDS, fuses=True)
def _reduce(site: Site) -> bool:
    t = site.types[0]
    if not isinstance(t, TensorType) or t.known_shape is None:
        return False
    axes = positive(site.attrs.get("axes"), t.ndim)
    return lower_reduction(site, axes, _output_axes(axes, t.ndim, site.attrs.get("keepdims", False)))


@lowers("sum_to", fuses=True)
def _sum_to(site: Site) -> bool:
    t = site.types[0]
    if not isinstance(t, TensorType) or t.known_shape is None:
        return False
    shape: Shape = site.attrs["shape"]
    lead = t.ndim - len(shape)
    axes = list(range(lead))
    for i, n in enumerate(shape):
        if n == t.shape[lead + i]:
            continue
        if n != 1:
            return False  # which of two different symbols is 1 only run time knows
        axes.append(lead + i)
    return lower_reduction(site, axes, range(lead, t.ndim))


@lowers("logsumexp", fuses=True)
def _logsumexp(site: Site) -> bool:
    t = site.types[0]
    if not supported(t):
        return False
    axes = positive(site.attrs.get("axes"), t.ndim)
    where = _output_axes(axes, t.ndim, site.attrs.get("keepdims", False))
    x, out = site.read(0), site.write()
    y, epilogue = spread(out.operand, where, t.ndim), spread_epilogue(site.epilogue, where, t.ndim)
    inner = [a in axes for a in range(t.ndim)]
    rows = arrange(site.target, t.dtype, t.shape, inner, [x.operand, y], epilogue, weight=4, width=2)
    call_rows(site, "logsumexp", emit_logsumexp, rows, rows, [x, out], flops=20)
    return True


def emit_logsumexp(e: Emitter, rows: Rows) -> None:
    """Write the logarithm of the sum of exponentials."""
    dtype = rows.operands[0].dtype

    def body(row: Row) -> None:
        top = finite_top(row, 0)
        (total,) = row.fold(("add",), lambda x, m: [exponential(e, e.b.fsub(x, m), dtype)], (0,), [top], dtype=dtype)
        row.put(1, row.each(lambda s, m: e.b.fadd(logarithm(e, s, dtype), m), total, top), epilogue=True)

    walk(e, rows, body)


def finite_top(row: Row, operand: int) -> Lanes:
    """Return the largest element of each row, 0 where that is infinite: what exponentials are taken relative to."""
    e, dtype = row.e, row.rows.operands[operand].dtype
    (top,) = row.fold(("top",), lambda x: [x], (operand,), dtype=dtype)

    def finite(m: V) -> V:
        zero = e.constant(0, m.type)
        return e.b.select(e.b.fcmp_ordered("==", e.b.fsub(m, m), zero), m, zero)

    return row.each(finite, top)


def exponential(e: Emitter, x: V, dtype: Any) -> V:
    """Return e to the x."""
    return evaluate(e, exp(Var("x")), {"x": x}, _lanes(x), dtype)


def logarithm(e: Emitter, x: V, dtype: Any) -> V:
    """Return the natural logarithm of x."""
    return evaluate(e, log(Var("x")), {"x": x}, _lanes(x), dtype)


def _lanes(x: V) -> int:
    return x.type.count if isinstance(x.type, ir.VectorType) else 1


@dataclass(frozen=True)
class Division:
    """x / count."""

    rows: Rows
    count: DimLike


def emit_division(e: Emitter, p: Division) -> None:
    """Write the division by a number of elements."""
    dtype = p.rows.operands[0].dtype
    by = number(e, p.count, dtype)

    def body(row: Row) -> None:
        divisor = [e.splat(by, row.state_lanes)] * row.width
        row.map(lambda x, n: [e.b.fdiv(x, n)], (0,), (1,), [divisor], epilogue=1, unroll=4)

    walk(e, p.rows, body)


@lowers("divided", fuses=True)
def _divided(site: Site) -> bool:
    t = site.types[0]
    if not supported(t):
        return False
    x, out = site.read(0), site.write()
    everything = range(t.ndim)
    epilogue = spread_epilogue(site.epilogue, everything, t.ndim)
    rows = arrange_map(site.target, t.dtype, t.shape, [x.operand, spread(out.operand, everything, t.ndim)], epilogue)
    call_rows(site, "divided", emit_division, Division(rows, site.attrs["count"]), rows, [x, out])
    return True
