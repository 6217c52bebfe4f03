"""Quantisation, element by element: its ops as scalar expressions, and the range that a tensor is quantised by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...dims import DimLike
from ...expr import Const, Expr, Var, call, maximum, minimum
from ...types import TensorType
from .emitter import F32, I8, I64, Emitter, V
from .kernel import kernel
from .lowering import Site, lowers
from .operand import packed
from .pointwise import make_kernel

QUANTISATION = ("quantize_linear", "dequantize_linear", "fake_quantize", "requantize")
"""Ops that are scalar expressions; see `expression`."""

_INTEGERS = ("int8", "uint8", "int32")
_PIECE = 1 << 14
"""Elements of which one chunk seeks the range."""


def _real(x: Expr, dtype: str) -> Expr:
    """Return an element of a type as float32."""
    if isinstance(x, Const):
        return Const(float(x.value))
    return x if dtype == "float32" else call(f"cast:{dtype}:float32", x)


def _rounded(x: Expr, zero: Expr | None, dtype: Any) -> Expr:
    """Return saturate(round(x) + zero) for an integer type of 8 bits, as float32."""
    info = np.iinfo(dtype)
    whole = call("round", x) if zero is None else call("round", x) + zero
    return minimum(maximum(whole, float(info.min)), float(info.max))


def expression(op: str, attrs: dict[str, Any], types: Sequence[Any], result: Any, args: Sequence[Any]) -> Expr | None:
    """Return what an op of quantisation computes of expressions; None where there is no code for it.

    Args:
        op: the name of one of `QUANTISATION`.
        attrs: its attributes.
        types: element types of its arguments, None for one that is left out.
        result: the result's element type.
        args: what its arguments are, as they lie in memory.
    """
    names = [None if t is None else np.dtype(t).name for t in types]
    if names[1] != "float32":
        return None
    if any(n not in (None, "float32", *_INTEGERS) for n in names):
        return None
    reals = [None if n is None else _real(a, n) for n, a in zip(names, args, strict=True)]
    x, scale, *more = reals
    assert x is not None and scale is not None
    if op == "dequantize_linear":
        zero = more[0] if more else None
        if np.dtype(result) != np.float32 or names[0] == "float32" or (names[0] == "int32" and zero is not None):
            return None
        return (x if zero is None else x - zero) * scale
    to = np.dtype(attrs["dtype"]).name
    if to not in ("int8", "uint8") or names[0] not in ("float32", "int32"):
        return None
    if op == "fake_quantize":
        back, zero, zero_back = (*more, None, None)[:3]
        if np.dtype(result) != np.float32 or names[0] != "float32" or names[2] != "float32" or back is None:
            return None
        whole = _rounded(x / scale, zero, to)
        return (whole if zero_back is None else whole - zero_back) * back
    zero = more[0] if more else None
    whole = _rounded(x * scale if op == "requantize" else x / scale, zero, to)
    return call(f"cast:float32:{to}", whole)


@lowers(*QUANTISATION)
def lower_quantization(site: Site) -> bool:
    """Lower an op of quantisation by itself."""
    shape = site.result.known_shape
    given = [(i, t) for i, t in enumerate(site.types) if t is not None]
    if shape is None or not all(isinstance(t, TensorType) and _fits(t, shape) for _, t in given):
        return False
    number = {i: n for n, (i, _) in enumerate(given)}
    args = [Var(f"a{number[i]}") if i in number else None for i in range(len(site.types))]
    dtypes = [None if t is None else t.dtype for t in site.types]
    found = expression(site.op, site.attrs, dtypes, site.result.dtype, args)
    if found is None:
        return False
    refs = [site.read(i) for i, _ in given]
    out = site.write(0)
    site.call(make_kernel(site.target, found, [r.operand for r in refs], out.operand), [*refs, out])
    return True


def _fits(t: TensorType, shape: Sequence[DimLike]) -> bool:
    """Whether a tensor broadcasts to a shape, an axis that only run time knows being of its size."""
    own = t.known_shape
    return (
        own is not None
        and len(own) <= len(shape)
        and all(d in (1, n) for d, n in zip(own, shape[len(shape) - len(own) :], strict=True))
    )


# ranges ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """What the code that seeks a range depends on: how many elements there are, and pieces of them."""

    size: DimLike
    pieces: DimLike


@lowers("dynamic_quantize_linear")
def lower_dynamic(site: Site) -> bool:
    """Lower quantisation by the range of the tensor: the range of each piece, that of all, the quantisation."""
    x = site.types[0]
    if x.dtype != np.float32 or x.known_shape is None:
        return False
    source = site.read(0, order="plain")
    p = Range(x.size, (x.size + (_PIECE - 1)) // _PIECE)
    ends = site.temporary(np.float32, (2, p.pieces))
    site.call(kernel("range", emit_pieces, p, operands=2, chunks=p.pieces, bytes=x.size * 4), [source, ends])
    whole, scale, zero = site.write(0, order="plain"), site.write(1), site.write(2)
    site.call(kernel("scale", emit_scale, p, operands=3), [ends, scale, zero])
    reals = [Var("a0"), Var("a1"), Var("a2")]
    dtypes = [np.float32, np.float32, np.uint8]
    found = expression("quantize_linear", {"dtype": "uint8"}, dtypes, np.uint8, reals)
    assert found is not None
    one = [packed(np.dtype(t), ()) for t in (np.float32, np.uint8)]
    made = make_kernel(site.target, found, [source.operand, *one], whole.operand)
    site.call(made, [source, scale, zero, whole])
    return True


def emit_pieces(e: Emitter, p: Range) -> None:
    """Write the smallest and largest element of a piece, 0 among them."""
    lanes = e.target.lanes(np.float32)
    first = e.mul(e.chunk, _PIECE)
    stop = e.min(e.add(first, _PIECE), p.size)
    zeros = e.zero(np.float32, lanes)
    whole = e.add(first, e.mul(e.div(e.sub(stop, first), lanes), lanes))
    with e.loop(first, whole, lanes, carry=[zeros, zeros]) as i:
        x = e.load(e.at(e.pointer(0), i.index, np.float32), np.float32, lanes)
        i.next([e.combine(fold, a, x) for fold, a in zip(("min", "max"), i.carried, strict=True)])
    ends = [e.reduce(fold, v) for fold, v in zip(("min", "max"), i.results, strict=True)]
    with e.loop(whole, stop, carry=ends) as i:
        x = e.load(e.at(e.pointer(0), i.index, np.float32), np.float32)
        i.next([e.combine(fold, a, x) for fold, a in zip(("min", "max"), i.carried, strict=True)])
    for n, end in enumerate(i.results):
        e.store(end, e.at(e.pointer(1), e.add(e.mul(n, p.pieces), e.chunk), np.float32), np.float32)


def emit_scale(e: Emitter, p: Range) -> None:
    """Write the scale and the zero point of the range of all pieces."""
    zero = e.zero(np.float32)
    with e.loop(0, p.pieces, carry=[zero, zero]) as i:
        found = [e.load(e.at(e.pointer(0), e.add(e.mul(n, p.pieces), i.index), np.float32), np.float32) for n in (0, 1)]
        i.next([e.combine(f, a, x) for f, a, x in zip(("min", "max"), i.carried, found, strict=True)])
    low, high = i.results
    b = e.b
    scale = b.fdiv(b.fsub(high, low), F32(255.0))
    scale = b.select(b.fcmp_ordered("==", scale, zero), F32(1.0), scale)
    e.store(scale, e.pointer(1), np.float32)
    e.store(_byte(e, b.fdiv(b.fneg(low), scale)), e.pointer(2), np.uint8)


def _byte(e: Emitter, x: V) -> V:
    """Return a float rounded, halves to even, into 0 to 255."""
    b = e.b
    whole = e.combine("min", e.combine("max", _rint(e, x), F32(0.0)), F32(255.0))
    return b.trunc(b.fptosi(whole, I64), I8)


def _rint(e: Emitter, x: V) -> V:
    """Return a number of at most 2**22 rounded, halves to even."""
    magic = ir.Constant(F32, float(3 << 22))
    return e.b.fsub(e.b.fadd(x, magic), magic)
