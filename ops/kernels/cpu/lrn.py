"""Local response normalisation: each element over a power of the squares of its neighbours in the channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...dims import Dim
from ...expr import Const, Var, pow_
from .emitter import I64, Emitter, V
from .expression import evaluate
from .lowering import Site, lowers
from .reduce import call_rows, supported
from .row import Row, walk
from .rows import Rows, arrange, spread, spread_epilogue


@dataclass(frozen=True)
class Lrn:
    """How to walk, and the op's attributes."""

    rows: Rows
    size: int
    alpha: float
    beta: float
    bias: float


@lowers("lrn", fuses=True)
def _lrn(site: Site) -> bool:
    t = site.types[0]
    if not supported(t) or t.ndim < 2 or isinstance(t.shape[1], Dim) or t.shape[1] == 1:
        return False
    a, axes = site.attrs, range(t.ndim)
    x, out = site.read(0), site.write()
    operands = [x.operand, spread(out.operand, axes, t.ndim)]
    epilogue = spread_epilogue(site.epilogue, axes, t.ndim)
    inner = [axis == 1 for axis in axes]
    rows = arrange(site.target, t.dtype, t.shape, inner, operands, epilogue, weight=8, width=2)
    p = Lrn(rows, a["size"], a["alpha"], a["beta"], a["bias"])
    call_rows(site, "lrn", emit_lrn, p, rows, [x, out], flops=2 * p.size + 20)
    return True


def emit_lrn(e: Emitter, p: Lrn) -> None:
    """Write local response normalisation; neighbours beyond the first and last channel are masked or count as 0."""
    rows, dtype = p.rows, p.rows.operands[0].dtype
    operand, lanes = rows.operands[0], rows.lanes
    axis = next(a for a, i in enumerate(rows.inner) if i)
    channels = int(np.asarray(rows.shape[axis]))
    before, after = (p.size - 1) // 2, p.size - 1 - (p.size - 1) // 2
    neighbours = [*range(-before, 0), *range(1, after + 1)]

    def result(x: V, total: V) -> V:
        value = e.fma(total, e.constant(p.alpha / p.size, x.type), e.constant(p.bias, x.type))
        if p.beta == 0.75:
            root = e.call("llvm.sqrt", x.type, [value])
            return e.b.fdiv(x, e.b.fmul(root, e.call("llvm.sqrt", x.type, [root])))
        power = pow_(Var("t"), Const(-p.beta))
        return e.b.fmul(x, evaluate(e, power, {"t": value}, lanes, dtype))

    def body(row: Row) -> None:
        first, tail = row.pointer(0), row.tail(1, epilogue=True)
        apart = rows.columns or lanes == 1

        def load(c: V, w: int, mask: V) -> V:
            place = e.at(first, e.mul(c, operand.strides[axis]), dtype)
            return e.load(e.at(place, w * lanes, dtype) if rows.columns else place, dtype, lanes, mask=mask)

        def step(c: V, mask: V) -> None:
            for w in range(row.width):
                taken = row.masks[w] if rows.columns else mask
                x = load(c, w, taken)
                total = e.b.fmul(x, x)
                for j in neighbours:
                    near = e.add(c, j)
                    if apart:
                        inside = e.b.icmp_unsigned("<", near, I64(channels))
                        y = load(e.b.select(inside, near, c), w, taken)
                        total = e.b.fadd(total, e.b.select(inside, e.b.fmul(y, y), e.constant(0.0, x.type)))
                    else:
                        places = e.b.add(e.splat(near, lanes), e.iota(lanes))
                        y = load(near, w, e.b.icmp_unsigned("<", places, e.splat(I64(channels), lanes)))
                        total = e.fma(y, y, total)
                tail.moved(axis, c).store(result(x, total), row.offsets(0, w), lanes, taken)

        wide = 1 if apart else lanes
        whole = channels - channels % wide
        if whole:
            with e.loop(0, whole, wide) as loop:
                step(loop.index, None)
        if whole < channels:
            step(I64(whole), e.tail_mask(channels - whole, lanes))

    walk(e, rows, body)
