"""Losses of classification: what softmax needs of each row, the loss at its label, the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...dims import DimLike
from ...types import TensorType
from .emitter import I1, I64, Emitter, V, scalar_type
from .kernel import kernel
from .lowering import Ref, Site, lowers
from .operand import Operand, row_major
from .reduce import LONG, call_rows, exponential, logarithm, number, supported
from .row import Row, walk
from .rows import Rows, arrange, cut, few_and_long, piecewise, spread
from .walk import CHUNK_BYTES, Axis, axes_of, bounds_of, chunks_of, descend, tiled


@dataclass(frozen=True)
class Labelled:
    """The losses at labels.

    Attributes:
        dtype: of the losses.
        index: of the labels.
        axes: of the labels; strides of x, the labels, and what is made row by row.
        classes: how many there are.
        stride: of x from class to class.
        softmax: whether x is to be normalised: then the largest of each row and the logarithm of its sum are given.
        weights: whether classes have weights.
        ignore: the label that counts nothing.
        counts: whether weights of the labels are stored, too.
    """

    dtype: np.dtype[Any]
    index: np.dtype[Any]
    axes: tuple[Axis, ...]
    classes: DimLike
    stride: DimLike
    softmax: bool
    weights: bool
    ignore: int | None
    counts: bool


@lowers("nll_loss", "softmax_cross_entropy")
def _loss(site: Site) -> bool:
    x_type, labels_type = site.types[:2]
    weights_type = site.types[2] if len(site.types) > 2 else None
    tensors = [x_type] if weights_type is None else [x_type, weights_type]
    if not supported(*tensors) or not isinstance(labels_type, TensorType) or labels_type.known_shape is None:
        return False
    wanted = (x_type.shape[0], *x_type.shape[2:])
    if labels_type.dtype not in (np.dtype(np.int32), np.dtype(np.int64)) or labels_type.shape != wanted:
        return False
    if weights_type is not None and weights_type.shape[0] != x_type.shape[1]:
        return False
    dtype, shape, ndim = x_type.dtype, x_type.shape, x_type.ndim
    reduction, ignore = site.attrs.get("reduction", "mean"), site.attrs.get("ignore_index")
    softmax, weighted = site.op == "softmax_cross_entropy", weights_type is not None
    counts = reduction == "mean" and (weighted or ignore is not None)
    x, labels = site.read(0), site.read(1, order="plain")
    refs = [x, labels]
    made = Operand(dtype, wanted, row_major(wanted))
    if softmax:
        over = spread(made, [0, *range(2, ndim)], ndim)
        statistics = [site.temporary(dtype, wanted) for _ in range(2)]
        inner = [a == 1 for a in range(ndim)]
        rows = arrange(site.target, dtype, shape, inner, [x.operand, over, over], weight=4, width=2)
        call_rows(site, f"{site.op}: rows", emit_sums, rows, rows, [x, *statistics], flops=20)
        refs += statistics
    if weighted:
        refs.append(site.read(2, order="plain"))
    out = site.write(0, order="plain")
    losses = out if reduction == "none" else site.temporary(dtype, wanted)
    refs.append(losses)
    found = [site.temporary(dtype, wanted)] if counts else []
    refs += [*found, site.flag(f"{site.op}: a label is no class")]
    s = x.operand.strides
    axes = axes_of(wanted, (s[0], *s[2:]), labels.operand.strides, made.strides) or [Axis(1, (0, 0, 0))]
    axes = list(tiled(axes, CHUNK_BYTES // 16))
    p = Labelled(dtype, np.dtype(labels_type.dtype), tuple(axes), shape[1], s[1], softmax, weighted, ignore, counts)
    site.call(kernel(site.op, emit_labelled, p, operands=len(refs), chunks=chunks_of(axes), bytes=made.size * 24), refs)
    if reduction != "none":
        _reduce(site, [losses, *found], out, made.size if reduction == "mean" and not counts else 0)
    return True


def emit_sums(e: Emitter, rows: Rows) -> None:
    """Write, of each row, the largest element and the logarithm of the sum of exponentials relative to it."""
    dtype = rows.operands[0].dtype

    def body(row: Row) -> None:
        (top,) = row.fold(("top",), lambda x: [x], (0,), dtype=dtype)
        (total,) = row.fold(
            ("add",), lambda x, m: [exponential(e, e.b.fsub(x, m), dtype)], (0,), [top], dtype=dtype, unroll=2
        )
        row.put(1, top)
        row.put(2, row.each(lambda s: logarithm(e, s, dtype), total))

    walk(e, rows, body)


def emit_labelled(e: Emitter, p: Labelled) -> None:
    """Write the loss at each label: operands are x, the labels, the statistics, the weights, the losses, their weights.

    The last is the flag that a label which is no class sets.
    """
    names = ["x", "labels", *(("top", "logs") if p.softmax else ()), *(("weights",) if p.weights else ()), "losses"]
    names += [*(("counts",) if p.counts else ()), "flag"]
    numbers = {name: i for i, name in enumerate(names)}
    moving = [n for n in names if n not in ("weights", "flag")]
    kind = {"x": 0, "labels": 1}
    axes = tuple(Axis(a.size, tuple(a.strides[kind.get(n, 2)] for n in moving), a.tile) for a in p.axes)
    dtypes = [p.index if n == "labels" else p.dtype for n in moving]
    zero, classes = e.constant(0.0, scalar_type(p.dtype)), e.index(p.classes)

    def body(places: Sequence[V]) -> None:
        at = dict(zip(moving, places, strict=True))
        raw = e.load(at["labels"], p.index)
        raw = e.b.sext(raw, I64) if p.index.itemsize < 8 else raw
        ignored = I1(0) if p.ignore is None else e.b.icmp_signed("==", raw, I64(p.ignore))
        label = e.b.select(e.b.icmp_signed("<", raw, I64(0)), e.b.add(raw, classes), raw)
        fits = e.b.icmp_unsigned("<", label, classes)
        with e.when(e.b.not_(e.b.or_(fits, ignored))):
            e.store(I64(1), e.pointer(numbers["flag"]), np.int64)
        label = e.b.select(e.b.and_(fits, e.b.not_(ignored)), label, I64(0))
        value = e.load(e.at(at["x"], e.mul(label, p.stride), p.dtype), p.dtype)
        loss = e.b.fneg(value)
        if p.softmax:
            loss = e.b.fsub(e.load(at["logs"], p.dtype), e.b.fsub(value, e.load(at["top"], p.dtype)))
        weight = e.constant(1.0, zero.type)
        if p.weights:
            weight = e.load(e.at(e.pointer(numbers["weights"]), label, p.dtype), p.dtype)
            loss = e.b.fmul(loss, weight)
        e.store(e.b.select(ignored, zero, loss), at["losses"], p.dtype)
        if p.counts:
            e.store(e.b.select(ignored, zero, weight), at["counts"], p.dtype)

    descend(e, axes, bounds_of(e, axes), [e.pointer(numbers[n]) for n in moving], dtypes, body)


@dataclass(frozen=True)
class Total:
    """The sum of the losses, over the sum of their weights or a count.

    Attributes:
        rows: how to walk; operands are the losses, the weights if there are some, then the sums.
        weights: whether there are weights.
        count: what the sum is divided by; 0 for nothing.
        last: whether the sums are those of all, which are divided.
    """

    rows: Rows
    weights: bool
    count: DimLike
    last: bool


def _reduce(site: Site, parts: list[Ref], out: Ref, count: DimLike) -> None:
    """Add the kernels that sum up, pieces first where there are many."""
    dtype = parts[0].operand.dtype
    size = parts[0].operand.size
    weights = len(parts) > 1
    line = Operand(dtype, (size,), (1,))
    still = Operand(dtype, (size,), (0,))
    rows = arrange(site.target, dtype, (size,), [True], [*[line] * len(parts), *[still] * len(parts)])
    if few_and_long(rows, LONG):
        pieces, blocks = cut(rows, dtype, LONG)
        part, many = piecewise(pieces, len(parts), blocks, 1)
        pieces = replace(pieces, operands=(*pieces.operands[: len(parts)], *[part] * len(parts)))
        sums = [site.temporary(dtype, (many,)) for _ in parts]
        call_rows(site, f"{site.op}: pieces", emit_total, Total(pieces, weights, 0, False), pieces, [*parts, *sums])
        parts, line, still = sums, Operand(dtype, (many,), (1,)), Operand(dtype, (many,), (0,))
        size = many
    rows = arrange(site.target, dtype, (size,), [True], [*[line] * len(parts), still])
    call_rows(site, f"{site.op}: mean", emit_total, Total(rows, weights, count, True), rows, [*parts, out])


def emit_total(e: Emitter, p: Total) -> None:
    """Write the sums."""
    dtype = p.rows.operands[0].dtype
    given = 2 if p.weights else 1
    count = number(e, p.count, dtype) if p.count != 0 else None

    def body(row: Row) -> None:
        sums = row.fold(("add",) * given, lambda *terms: terms, tuple(range(given)), dtype=dtype)
        if not p.last:
            for k, value in enumerate(sums):
                row.put(given + k, value)
            return
        loss = sums[0]
        if p.weights:
            loss = row.each(e.b.fdiv, loss, sums[1])
        elif count is not None:
            loss = row.each(lambda v: e.b.fdiv(v, e.splat(count, row.state_lanes)), loss)
        row.put(given, loss)

    walk(e, p.rows, body)
