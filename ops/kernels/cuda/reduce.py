"""Reductions over any axes of tensors that lie in any way: sums, products, extremes, norms, and where extremes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...reduce import positive
from ...types import DType, TensorType
from .kernel import Parameter
from .lowering import Site, every, lowers
from .prelude import C_TYPES, computed
from .row_kernel import RowKernel, floats, function, sizes, source
from .row_parts import joined, parts_of, stored_as
from .rows import Along, spread, whole
from .signature import element_limits


@dataclass(frozen=True)
class Folding:
    """A reduction of rows of `x`.

    Attributes:
        fold: the fold, as `Sum<float>`.
        term: what is added of an element.
        result: what the states give.
        states: what the fold leaves; pieces of rows leave the same.
        ctype: what is calculated with.
        least: what an `Extreme` of nothing is.
    """

    fold: str
    term: str
    result: str
    states: tuple[str, ...] = ("total",)
    ctype: str = "float"
    least: str = "0"


def folding(op: str, dtype: DType, count: int) -> Folding | None:
    """Return how an op folds elements of a type; None where it does not.

    Args:
        op: its name.
        dtype: of the elements.
        count: of the elements of a row.
    """
    if dtype.name not in C_TYPES:
        return None
    c = computed(dtype)
    real = floats(dtype)
    if op in ("max", "min") or c == "bool":
        if op not in ("max", "min", "sum", "sum_to", "prod"):
            return None
        sign = 1 if op in ("max", "sum", "sum_to") else -1
        low, high = ("0", "1") if c == "bool" else element_limits(dtype)
        wide = c if real else _wide(dtype)
        return Folding(f"Extreme<{wide}, {sign}>", f"({wide})x", "total", ctype=wide, least=low if sign > 0 else high)
    if not real:
        if op == "mean" and count:
            wide = "i64" if dtype.kind == "i" else "u64"
            return Folding(f"Sum<{wide}>", f"({wide})x", f"total / ({wide})n", ctype=wide)
        wide = "u64" if dtype.itemsize == 8 else "u32"
        kind = {"sum": "Sum", "sum_to": "Sum", "prod": "Product"}.get(op)
        return Folding(f"{kind}<{wide}>", f"({wide})x", "total", ("total",), wide) if kind else None
    sums = f"Sum<{c}>"
    match op:
        case "sum" | "sum_to":
            return Folding(sums, "x", "total", ctype=c)
        case "mean":
            return Folding(sums, "x", "total / n", ctype=c)
        case "l2_norm":
            return Folding(sums, "x * x", f"{function('sqrt', c)}(total)", ctype=c)
        case "prod":
            return Folding(f"Product<{c}>", "x", "total", ctype=c)
        case "logsumexp":
            return Folding(f"Online<{c}>", "x", f"{function('log', c)}(total) + top", ("top", "total"), c)
    return None


def _wide(dtype: DType) -> str:
    """Return the type of at least 32 bits that integers are compared as."""
    return f"{'u' if dtype.kind == 'u' else 'i'}{max(32, dtype.itemsize * 8)}"


def fold_rows(
    site: Site, name: str, shape: Sequence[int], reduced: Sequence[bool], reads: Sequence[Along], y: Along,
    how: Folding, axes: Sequence[int], count: int, derived: Mapping[str, Sequence[str]] | None = None,
) -> None:  # fmt: skip
    """Fold rows in one kernel, or pieces of few long rows and then what they gave.

    Args:
        site: where.
        name: of the kernels.
        shape: of the walk.
        reduced: which of its axes are in a row.
        reads: what is folded, `x`, or what that is computed of.
        y: the output.
        how: it is folded.
        axes: the axes of the walk that the output has.
        count: elements of a row.
        derived: how `x` is computed.
    """
    kind: Parameter = "f64" if how.ctype == "double" else "f32" if how.ctype == "float" else "i64"
    dtypes = {s: stored_as("i64" if s == "at" else how.ctype) for s in how.states}
    pieces, parts = parts_of(site, reads[0], shape, reduced, dtypes, reads[1:])
    last, term, shape2, reduced2, out = list(reads), how.term, list(shape), list(reduced), y
    if parts:
        first = RowKernel(
            site, f"{name}_pieces", shape, reduced, reads, parts, ctype=how.ctype, cut=True, least=how.least,
            derived=derived,
        )  # fmt: skip
        first.fold([(how.states, how.fold, how.term)])
        first.put({s: s for s in how.states})
        first.launch()
        last = joined(parts, shape, reduced)
        shape2 = [pieces, *(1 if r else n for n, r in zip(shape, reduced, strict=True))]
        reduced2, axes = [True, *reduced], [a + 1 for a in axes]
        out = Along(y.name, y.ref, (0, *y.strides))
        term = ", ".join(p.name for p in last)
    k = RowKernel(
        site, name, shape2, reduced2, last, [out], ctype=how.ctype, axes=axes, least=how.least,
        derived=None if parts else derived,
    )  # fmt: skip
    k.fold([(how.states, how.fold, term)])
    if "n" in how.result.replace("(", " ").replace(")", " ").split():
        k.number("n", count if kind == "i64" else float(count), kind)
    k.put({y.name: how.result})
    k.launch()


def reduce_axes(site: Site, axes: Sequence[int], where: Sequence[int]) -> bool:
    """Lower a reduction.

    Args:
        site: where.
        axes: that are reduced.
        where: for each axis of the output, which axis of the input it is.
    """
    t = site.types[0]
    count = prod(sizes(t)[a] for a in axes)
    how = folding(site.op, t.dtype, count)
    if how is None:
        return False
    (reads, derived), out = source(site, "x", 0), site.write()
    if out.operand.size == 0:
        return True
    reduced = [a in axes for a in range(t.ndim)]
    y = spread("y", out, where, t.ndim)
    fold_rows(site, f"reduce_{site.op}", sizes(t), reduced, reads, y, how, where, count, derived)
    return True


def _output_axes(axes: Sequence[int], ndim: int, keepdims: bool) -> list[int]:
    return [a for a in range(ndim) if keepdims or a not in axes]


@lowers("sum", "mean", "prod", "max", "min", "l2_norm", "logsumexp", fuses=every, narrow=(0,), prologue={0: 1})
def _reduce(site: Site) -> bool:
    t = site.types[0]
    if not isinstance(t, TensorType):
        return False
    axes = positive(site.attrs.get("axes"), t.ndim)
    return reduce_axes(site, axes, _output_axes(axes, t.ndim, site.attrs.get("keepdims", False)))


@lowers("sum_to", fuses=every, narrow=(0,), prologue={0: 1})
def _sum_to(site: Site) -> bool:
    t, shape = site.types[0], site.attrs["shape"]
    if not isinstance(t, TensorType):
        return False
    lead = t.ndim - len(shape)
    axes = [*range(lead), *(lead + i for i, n in enumerate(shape) if n != t.shape[lead + i])]
    return reduce_axes(site, axes, range(lead, t.ndim))


@lowers("argmax", "argmin", fuses=every, narrow=(0,))
def _arg(site: Site) -> bool:
    t = site.types[0]
    axis = site.attrs["axis"] % t.ndim if isinstance(t, TensorType) and t.ndim else -1
    if axis < 0 or t.dtype.name not in C_TYPES or t.shape[axis] == 0:
        return False
    x, out = site.read(0), site.write()
    if out.operand.size == 0:
        return True
    c = computed(t.dtype) if floats(t.dtype) else _wide(t.dtype) if t.dtype.kind != "b" else "i32"
    sign, late = 1 if site.op == "argmax" else -1, int(site.attrs.get("select_last", False))
    how = Folding(f"Best<{c}, {sign}, {late}>", f"({c})x, position", "at", ("value", "at"), c)
    where = _output_axes((axis,), t.ndim, site.attrs.get("keepdims", False))
    reduced = [a == axis for a in range(t.ndim)]
    fold_rows(
        site, f"reduce_{site.op}", sizes(t), reduced, [whole("x", x)], spread("y", out, where, t.ndim), how, where, 0
    )
    return True


@lowers("divided", fuses=every, narrow=(0,))
def _divided(site: Site) -> bool:
    t = site.types[0]
    if not isinstance(t, TensorType) or not floats(t.dtype):
        return False
    x, out = site.read(0), site.write()
    if out.operand.size == 0:
        return True
    axes = range(t.ndim)
    k = RowKernel(site, "divided", sizes(t), [False] * t.ndim, [whole("x", x)], [whole("y", out)], each=True, axes=axes)
    count: Any = site.attrs["count"]
    k.number("n", float(count))
    k.map({"y": "x / n"})
    k.launch()
    return True
