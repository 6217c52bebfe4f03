"""Softmax and its logarithm along any axis: the largest, exponentials and their sum, the scale; their gradients."""

from __future__ import annotations

from .emitter import Emitter, V
from .lowering import Site, lowers
from .reduce import call_rows, exponential, logarithm, supported
from .row import KEPT, Row, walk
from .rows import Rows, arrange, spread, spread_epilogue


@lowers("softmax", "log_softmax", fuses=True)
def _softmax(site: Site) -> bool:
    t = site.types[0]
    if not supported(t) or not t.shape:
        return False
    axis, axes = site.attrs["axis"] % t.ndim, range(t.ndim)
    x, out = site.read(0), site.write()
    operands = [x.operand, spread(out.operand, axes, t.ndim)]
    keeps = site.op == "softmax"
    rows = arrange(
        site.target, t.dtype, t.shape, [a == axis for a in axes], operands,
        spread_epilogue(site.epilogue, axes, t.ndim), weight=4, width=4, keeps=keeps,
    )  # fmt: skip
    emit = emit_softmax if keeps else emit_log_softmax
    call_rows(site, site.op, emit, rows, rows, [x, out], flops=20)
    return True


def emit_softmax(e: Emitter, rows: Rows) -> None:
    """Write softmax. A NaN is not seen by the maximum; the sum of exponentials then is NaN, and with it the row."""
    dtype = rows.operands[0].dtype

    def part(x: V, top: V) -> list[V]:
        y = exponential(e, e.b.fsub(x, top), dtype)
        return [y, y]

    def body(row: Row) -> None:
        (top,) = row.fold(("top",), lambda x: [x], (0,), dtype=dtype)
        (total,) = row.fold(("add",), part, (0,), [top], dtype=dtype, keeps=True, unroll=2)
        scale = row.each(lambda s: e.b.fdiv(e.constant(1.0, s.type), s), total)
        row.map(lambda y, s: [e.b.fmul(y, s)], (KEPT,), (1,), [scale], epilogue=1, unroll=4)

    walk(e, rows, body)


def emit_log_softmax(e: Emitter, rows: Rows) -> None:
    """Write the logarithm of softmax."""
    dtype = rows.operands[0].dtype

    def body(row: Row) -> None:
        (top,) = row.fold(("top",), lambda x: [x], (0,), dtype=dtype)
        (total,) = row.fold(
            ("add",), lambda x, m: [exponential(e, e.b.fsub(x, m), dtype)], (0,), [top], dtype=dtype, unroll=2
        )
        logs = row.each(lambda s: logarithm(e, s, dtype), total)
        row.map(lambda x, m, s: [e.b.fsub(e.b.fsub(x, m), s)], (0,), (1,), [top, logs], epilogue=1, unroll=4)

    walk(e, rows, body)


@lowers("softmax_grad", "log_softmax_grad", fuses=True)
def _gradient(site: Site) -> bool:
    t = site.types[0]
    if not supported(*site.types) or not t.shape:
        return False
    axis, axes = site.attrs["axis"] % t.ndim, range(t.ndim)
    g, y, out = site.read(0), site.read(1), site.write()
    operands = [g.operand, y.operand, spread(out.operand, axes, t.ndim)]
    epilogue = spread_epilogue(site.epilogue, axes, t.ndim)
    rows = arrange(site.target, t.dtype, t.shape, [a == axis for a in axes], operands, epilogue, weight=2, width=2)
    emit = emit_softmax_grad if site.op == "softmax_grad" else emit_log_softmax_grad
    call_rows(site, site.op, emit, rows, rows, [g, y, out], flops=4)
    return True


def emit_softmax_grad(e: Emitter, rows: Rows) -> None:
    """Write (g - sum(g y)) y."""
    dtype = rows.operands[0].dtype

    def body(row: Row) -> None:
        (inner,) = row.fold(("add",), lambda g, y: [e.b.fmul(g, y)], (0, 1), dtype=dtype)
        row.map(lambda g, y, s: [e.b.fmul(e.b.fsub(g, s), y)], (0, 1), (2,), [inner], epilogue=2, unroll=4)

    walk(e, rows, body)


def emit_log_softmax_grad(e: Emitter, rows: Rows) -> None:
    """Write g - e^y sum(g)."""
    dtype = rows.operands[0].dtype

    def body(row: Row) -> None:
        (total,) = row.fold(("add",), lambda g: [g], (0,), dtype=dtype)

        def result(g: V, y: V, s: V) -> list[V]:
            return [e.b.fsub(g, e.b.fmul(exponential(e, y, dtype), s))]

        row.map(result, (0, 1), (2,), [total], epilogue=2)

    walk(e, rows, body)
