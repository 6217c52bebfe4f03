"""Emitters: products of matrices."""

from __future__ import annotations

from typing import Any

from ....ops import matmul as ops
from ....ops.dims import Shape
from ....runtime.graph.graph import Value
from .registry import emits
from .writer import Writer


@emits(ops.matmul)
def matmul(w: Writer, a: Value, b: Value) -> Any:
    return w.add("MatMul", w.cast(a, w.out.dtype), w.cast(b, w.out.dtype))


@emits(ops.einsum)
def einsum(w: Writer, *xs: Value, equation: str, sizes: Shape = ()) -> Any:
    """Einsum; an output that repeats labels, or has sizes of its own, is for gradients alone."""
    terms, out = ops.parts(equation)
    if len(set(out)) != len(out) or not set(out) <= set("".join(terms)):
        return None
    y = w.add("Einsum", *(w.cast(x, w.out.dtype) for x in xs), equation=equation)
    found = {label: d for t, x in zip(terms, xs, strict=True) for label, d in zip(t, x.shape, strict=True) if d != 1}
    wider = any(found.get(label, 1) != d for label, d in zip(out, sizes, strict=False))
    return w.add("Expand", y, w.ints(sizes)) if wider else y


@emits(ops.det)
def det(w: Writer, a: Value) -> Any:
    return w.add("Det", a)


@emits(ops.inverse)
def inverse(w: Writer, a: Value) -> Any:
    return w.add("Inverse", a, domain="com.microsoft")
