"""The gradients of layer and RMS normalisation in all that they read, in one pass over rows and one over parts.

A row is read as often as it must be while it is in the cache. The gradients of scale and bias are sums over rows: each
chunk adds up its own rows, one after the other, and a second kernel adds what the chunks gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .emitter import Emitter, V
from .lowering import Site, lowers
from .normalize import inverse_deviation
from .operand import Operand, row_major
from .reduce import Reduction, call_rows, emit_reduction, supported
from .row import Row, walk
from .rows import Rows, arrange, spread, spread_epilogue

_GROUP = 256
"""At most so many rows are added up one after the other."""


@dataclass(frozen=True)
class RowGrad:
    """The gradient of a normalisation of rows.

    Attributes:
        rows: how to walk; operands are x, g, scale, the gradient of x, and a chunk's parts of those of scale and bias.
        epsilon: what is added to the variance.
        center: whether the mean is taken out; then there is a bias.
    """

    rows: Rows
    epsilon: float
    center: bool


@lowers("layer_norm_grad", "rms_norm_grad", fuses=True)
def _layer_norm_grad(site: Site) -> bool:
    if not supported(*site.types) or not site.types[0].shape:
        return False
    center = site.op == "layer_norm_grad"
    _, x_type, scale_type = site.types
    ndim, dtype = x_type.ndim, x_type.dtype
    axis = site.attrs["axis"] % ndim
    axes, trailing = range(ndim), range(axis, ndim)
    if scale_type.shape != x_type.shape[axis:]:
        return False
    g, x, scale = (site.read(i, order="plain") for i in range(3))
    out = site.write(0, order="plain")
    affine = [site.write(i, order="plain") for i in range(1, 2 + center)]
    operands = [x.operand, g.operand, *(spread(o, trailing, ndim) for o in [scale.operand] * (2 + center))]
    operands.insert(3, spread(out.operand, axes, ndim))
    rows = arrange(
        site.target, dtype, x_type.shape, [a >= axis for a in axes], operands,
        spread_epilogue(site.epilogue, axes, ndim), weight=3,
    )  # fmt: skip
    if rows.columns:
        return False
    rows = replace(rows, group=min(rows.group, _GROUP), own=tuple(range(4, 5 + center)))
    shape = (rows.chunks, rows.count)
    parts = [site.temporary(dtype, shape) for _ in affine]
    call_rows(
        site, site.op, emit_row_grad, RowGrad(rows, site.attrs["epsilon"], center), rows, [x, g, scale, out, *parts]
    )
    part, total = Operand(dtype, shape, row_major(shape)), Operand(dtype, shape, (0, 1))
    second = arrange(site.target, dtype, shape, [True, False], [part, total])
    for source, to in zip(parts, affine, strict=True):
        call_rows(site, f"{site.op}: parts", emit_reduction, Reduction(second, "add"), second, [source, to])
    return True


def emit_row_grad(e: Emitter, p: RowGrad) -> None:
    """Write the gradient of x, and what the rows of a chunk add to those of scale and bias."""
    dtype, lanes = p.rows.operands[0].dtype, p.rows.lanes
    own = p.rows.own

    def clear(row: Row) -> None:
        row.map(lambda: [e.zero(dtype, lanes)] * len(own), (), own)

    def body(row: Row) -> None:
        n = [row.count(dtype)]
        given = []
        if p.center:
            (total,) = row.fold(("add",), lambda x: [x], (0,), dtype=dtype)
            given = [row.each(e.b.fdiv, total, n)]

        def terms(x: V, g: V, scale: V, *mean: V) -> Sequence[V]:
            c = e.b.fsub(x, mean[0]) if mean else x
            h = e.b.fmul(g, scale)
            return [e.b.fmul(c, c), e.b.fmul(h, c), *([h] if mean else [])]

        folds = ("add",) * (2 + p.center)
        squares, products, *totals = row.fold(folds, terms, (0, 1, 2), given, dtype=dtype, unroll=2)
        r = row.each(lambda q, k: inverse_deviation(e, row, e.b.fdiv(q, k), p.epsilon, dtype), squares, n)
        slope = row.each(lambda s, k, i: e.b.fmul(e.b.fmul(i, i), e.b.fdiv(s, k)), products, n, r)
        shift = [row.each(e.b.fdiv, totals[0], n)] if p.center else []

        def result(x: V, g: V, scale: V, *more: V) -> Sequence[V]:
            sums, (inverse, by, *centres) = more[: len(own)], more[len(own) :]
            c = e.b.fsub(x, centres[0]) if p.center else x
            h = e.b.fmul(g, scale)
            h = e.b.fsub(h, centres[1]) if p.center else h
            dx = e.b.fmul(inverse, e.b.fsub(h, e.b.fmul(c, by)))
            return [dx, e.fma(g, e.b.fmul(c, inverse), sums[0]), *(e.b.fadd(s, g) for s in sums[1:])]

        row.map(result, (0, 1, 2, *own), (3, *own), [r, slope, *given, *shift], epilogue=3)

    walk(e, p.rows, body, clear)
