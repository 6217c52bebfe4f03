"""Division by a p-norm along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .emitter import Emitter, V
from .lowering import Site, lowers
from .reduce import call_rows, supported
from .row import Row, walk
from .rows import Rows, arrange, spread, spread_epilogue


@dataclass(frozen=True)
class LpNorm:
    """x over its norm."""

    rows: Rows
    p: int


@lowers("lp_norm", fuses=True)
def _lp_norm(site: Site) -> bool:
    t = site.types[0]
    if not supported(t) or not t.shape:
        return False
    axis = site.attrs["axis"] % t.ndim
    axes = range(t.ndim)
    x, out = site.read(0), site.write()
    operands = [spread(r.operand, axes, t.ndim) for r in (x, out)]
    epilogue = spread_epilogue(site.epilogue, axes, t.ndim)
    rows = arrange(site.target, t.dtype, t.shape, [a == axis for a in axes], operands, epilogue, width=4)
    call_rows(site, site.op, emit_lp_norm, LpNorm(rows, site.attrs["p"]), rows, [x, out], flops=3)
    return True


def emit_lp_norm(e: Emitter, p: LpNorm) -> None:
    """Write x over its norm, 0 where that is 0."""
    dtype = p.rows.operands[0].dtype

    def body(row: Row) -> None:
        def term(x: V) -> Sequence[V]:
            return [e.b.fmul(x, x)] if p.p == 2 else [e.call("llvm.fabs", x.type, [x])]

        (norm,) = row.fold(("add",), term, (0,), dtype=dtype)
        if p.p == 2:
            norm = row.each(lambda v: e.call("llvm.sqrt", v.type, [v]), norm)

        def result(x: V, n: V) -> Sequence[V]:
            zero = e.constant(0.0, n.type)
            return [e.b.select(e.b.fcmp_ordered("==", n, zero), zero, e.b.fdiv(x, n))]

        row.map(result, (0,), (1,), [norm], epilogue=1, unroll=4)

    walk(e, p.rows, body)
