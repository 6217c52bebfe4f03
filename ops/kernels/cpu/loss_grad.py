"""The gradient of cross entropy: softmax by rows, times what the label of a row counts; then, at the labels, less that.

What a label counts is the gradient of the loss, times the label's weight, over the sum of the weights or the number of
labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dims import DimLike, product
from ...types import TensorType
from .emitter import I1, I64, Emitter, V, scalar_type
from .kernel import kernel
from .loss import Total, emit_total
from .lowering import Site, lowers
from .operand import Operand, row_major
from .reduce import call_rows, exponential, number, supported
from .row import KEPT, Lanes, Row, walk
from .rows import Rows, arrange, spread
from .walk import CHUNK_BYTES, Axis, axes_of, bounds_of, chunks_of, descend, tiled


@dataclass(frozen=True)
class Share:
    """What a label counts: g, times its weight, over a total.

    Attributes:
        weighted: whether labels have weights.
        total: whether there is a sum of weights to divide by.
        count: what to divide by else; 0 for nothing.
    """

    weighted: bool
    total: bool
    count: DimLike

    @property
    def names(self) -> list[str]:
        """The operands, in order."""
        return ["g", *(["weights"] if self.weighted else []), *(["total"] if self.total else [])]


@dataclass(frozen=True)
class Part:
    """The softmax of each row times its share; operands are x, those of the share, the result."""

    rows: Rows
    share: Share
    ignores: bool


@dataclass(frozen=True)
class Labels:
    """A walk over labels.

    Attributes:
        dtype: of the loss.
        index: of the labels.
        axes: of the labels.
        classes: how many there are.
        stride: of the result from class to class.
        ignore: the label that counts nothing.
        weights: whether classes have weights; for `emit_weights`.
        share: what a label counts; for `emit_subtract`.
    """

    dtype: np.dtype[Any]
    index: np.dtype[Any]
    axes: tuple[Axis, ...]
    classes: DimLike
    stride: DimLike
    ignore: int | None
    weights: bool = False
    share: Share | None = None


@lowers("softmax_cross_entropy_grad")
def _gradient(site: Site) -> bool:
    g_type, x_type, labels_type = site.types[:3]
    classes_type = site.types[3] if len(site.types) > 3 else None
    floats = [x_type, g_type] if classes_type is None else [x_type, g_type, classes_type]
    if not supported(*floats) or not isinstance(labels_type, TensorType) or labels_type.known_shape is None:
        return False
    shape, dtype, ndim = x_type.shape, x_type.dtype, x_type.ndim
    wanted = (shape[0], *shape[2:])
    reduction, ignore = site.attrs.get("reduction", "mean"), site.attrs.get("ignore_index")
    if labels_type.dtype not in (np.dtype(np.int32), np.dtype(np.int64)) or labels_type.shape != wanted:
        return False
    if classes_type is not None and classes_type.shape[0] != shape[1]:
        return False
    if g_type.shape != (wanted if reduction == "none" else ()):
        return False
    where = [0, *range(2, ndim)]
    x, g, labels, out = site.read(1), site.read(0, order="plain"), site.read(2, order="plain"), site.write()
    made = Operand(dtype, wanted, row_major(wanted))
    still = Operand(dtype, wanted, (0,) * len(wanted))
    share = Share(
        classes_type is not None or ignore is not None,
        reduction == "mean" and (classes_type is not None or ignore is not None),
        product(wanted) if reduction == "mean" else 0,
    )
    index = np.dtype(labels_type.dtype)
    refs, operands = [g], [made if reduction == "none" else still]
    if share.weighted:
        weights = site.temporary(dtype, wanted)
        refs.append(weights)
        operands.append(made)
        axes = _walk(wanted, labels.operand, made)
        params = Labels(dtype, index, axes, shape[1], 0, ignore, classes_type is not None)
        given = [labels, *([site.read(3, order="plain")] if classes_type is not None else []), weights]
        site.call(
            kernel(f"{site.op}: weights", emit_weights, params, operands=len(given), chunks=chunks_of(axes)), given
        )
        if share.total:
            total = site.temporary(dtype, ())
            line = Operand(dtype, (made.size,), (1,))
            rows = arrange(site.target, dtype, (made.size,), [True], [line, Operand(dtype, (made.size,), (0,))])
            call_rows(site, f"{site.op}: total", emit_total, Total(rows, False, 0, True), rows, [weights, total])
            refs.append(total)
            operands.append(still)
    over = [x.operand, *(spread(o, where, ndim) for o in operands), spread(out.operand, range(ndim), ndim)]
    rows = arrange(site.target, dtype, shape, [a == 1 for a in range(ndim)], over, weight=4, width=2, keeps=True)
    part = Part(rows, share, ignore is not None)
    call_rows(site, f"{site.op}: rows", emit_part, part, rows, [x, *refs, out], flops=20)
    s = out.operand.strides
    axes = _walk(wanted, labels.operand, *operands, Operand(dtype, wanted, (s[0], *s[2:])))
    params = Labels(dtype, index, axes, shape[1], s[1], ignore, share=share)
    given = [labels, *refs, out]
    site.call(kernel(site.op, emit_subtract, params, operands=len(given), chunks=chunks_of(axes)), given)
    return True


def _walk(shape: Sequence[DimLike], *operands: Operand) -> tuple[Axis, ...]:
    axes = axes_of(shape, *(o.strides for o in operands)) or [Axis(1, (0,) * len(operands))]
    return tiled(axes, CHUNK_BYTES // 16)


def emit_part(e: Emitter, p: Part) -> None:
    """Write softmax times what a row's label counts."""
    dtype, share = p.rows.operands[0].dtype, p.share
    last = len(p.rows.operands) - 1
    count = number(e, share.count, dtype) if share.count != 0 else None

    def part(x: V, top: V) -> list[V]:
        y = exponential(e, e.b.fsub(x, top), dtype)
        return [y, y]

    def body(row: Row) -> None:
        (top,) = row.fold(("top",), lambda x: [x], (0,), dtype=dtype)
        (total,) = row.fold(("add",), part, (0,), [top], dtype=dtype, keeps=True, unroll=2)
        values = {name: row.load(1 + i) for i, name in enumerate(share.names)}
        splat = [e.splat(count, row.state_lanes)] * row.width if count is not None else None
        by = _share(e, share, values, splat, row.each)
        scale = row.each(e.b.fdiv, by, total)
        if not p.ignores:
            row.map(lambda y, s: [e.b.fmul(y, s)], (KEPT,), (last,), [scale], unroll=4)
            return

        def kept(y: V, s: V, w: V) -> list[V]:
            zero = e.constant(0.0, y.type)
            return [e.b.select(e.b.fcmp_unordered("une", w, zero), e.b.fmul(y, s), zero)]

        row.map(kept, (KEPT,), (last,), [scale, values["weights"]], unroll=4)

    walk(e, p.rows, body)


def _share(
    e: Emitter, share: Share, values: dict[str, Lanes], count: Lanes | None, each: Callable[..., Lanes]
) -> Lanes:
    by = values["g"]
    if share.total:
        by = each(e.b.fdiv, by, values["total"])
    elif count is not None:
        by = each(e.b.fdiv, by, count)
    return each(e.b.fmul, by, values["weights"]) if share.weighted else by


def _class(e: Emitter, p: Labels, at: V) -> tuple[V, V]:
    """Return the class of a label and whether it counts."""
    raw = e.load(at, p.index)
    raw = e.b.sext(raw, I64) if p.index.itemsize < 8 else raw
    ignored = I1(0) if p.ignore is None else e.b.icmp_signed("==", raw, I64(p.ignore))
    classes = e.index(p.classes)
    label = e.b.select(e.b.icmp_signed("<", raw, I64(0)), e.b.add(raw, classes), raw)
    counts = e.b.and_(e.b.icmp_unsigned("<", label, classes), e.b.not_(ignored))
    return e.b.select(counts, label, I64(0)), counts


def emit_weights(e: Emitter, p: Labels) -> None:
    """Write the weight of each label, 0 where it counts nothing; operands are labels, those of classes, the result."""

    def body(places: Sequence[V]) -> None:
        label, counts = _class(e, p, places[0])
        weight = e.constant(1.0, scalar_type(p.dtype))
        if p.weights:
            weight = e.load(e.at(e.pointer(1), label, p.dtype), p.dtype)
        e.store(e.b.select(counts, weight, e.constant(0.0, weight.type)), places[1], p.dtype)

    pointers = [e.pointer(0), e.pointer(1 + p.weights)]
    descend(e, p.axes, bounds_of(e, p.axes), pointers, [p.index, p.dtype], body)


def emit_subtract(e: Emitter, p: Labels) -> None:
    """Write the result at the labels, less what they count: operands are labels, those of the share, the result."""
    share = p.share
    assert share is not None
    names = share.names
    count = [number(e, share.count, p.dtype)] if share.count != 0 else None

    def each(f: Callable[..., V], *values: Lanes) -> Lanes:
        return [f(*v) for v in zip(*values, strict=True)]

    def body(places: Sequence[V]) -> None:
        label, counts = _class(e, p, places[0])
        values = {name: [e.load(places[1 + i], p.dtype)] for i, name in enumerate(names)}
        (by,) = _share(e, share, values, count, each)
        with e.when(counts):
            at = e.at(places[-1], e.mul(label, p.stride), p.dtype)
            e.store(e.b.fsub(e.load(at, p.dtype), by), at, p.dtype)

    pointers = [e.pointer(i) for i in range(len(names) + 2)]
    descend(e, p.axes, bounds_of(e, p.axes), pointers, [p.index, *[p.dtype] * (len(names) + 1)], body)
