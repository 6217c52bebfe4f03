"""Conversions between element types as vector code."""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.ir as ir
import numpy as np

from ...errors import KernelError
from .emitter import BFLOAT, F32, F64, I32, Emitter, V

I16 = ir.IntType(16)
_REAL = {"float32": F32, "float64": F64}
_INTEGERS = {"int8": 8, "uint8": 8, "int32": 32, "int64": 64}
CASTABLE = frozenset({*_REAL, *_INTEGERS, "bool", "float16", "bfloat16"})
"""Names of the types between which `cast` converts."""


def cast(e: Emitter, x: V, source: str, target: str) -> V:
    """Return a value converted between element types, by their NumPy names; floats truncate to integers.

    Truth values are `i1`, bfloat16 its 16 bits, float16 `half` or its bits. Floats of 16 bits are
    rounded to nearest even, bfloat16 by way of float32.

    Raises:
        KernelError: if a type is not among `CASTABLE`.
    """
    for name in (source, target):
        if name not in CASTABLE:
            raise KernelError(f"{e.prefix}: no vector code for a cast from {source} to {target}")
    if source == target:
        return x
    if source in ("float16", "bfloat16"):
        x, source = _widen(e, x, source), "float32"
        if target == "float32":
            return x
    if target in ("float16", "bfloat16"):
        if source == "float64" and target == "float16":
            return _narrow_double(e, x)
        return _narrow(e, x if source == "float32" else cast(e, x, source, "float32"), target)
    return _plain(e, x, source, target)


def _kind(one: ir.Type, x: V) -> ir.Type:
    return ir.VectorType(one, x.type.count) if isinstance(x.type, ir.VectorType) else one


def _plain(e: Emitter, x: V, source: str, target: str) -> V:
    """Convert between truth values, integers, float32 and float64."""
    b = e.b
    if target == "bool":
        zero = e.constant(0, x.type)
        return b.fcmp_unordered("!=", x, zero) if source in _REAL else b.icmp_signed("!=", x, zero)
    if target in _REAL:
        kind = _kind(_REAL[target], x)
        if source in _REAL:
            return b.fpext(x, kind) if target == "float64" else b.fptrunc(x, kind)
        if source == "bool":
            return b.select(x, e.constant(1, kind), e.constant(0, kind))
        if source == "uint8":
            return b.sitofp(b.zext(x, _kind(I32, x)), kind)
        return b.sitofp(x, kind)
    bits = _INTEGERS[target]
    kind = _kind(ir.IntType(bits), x)
    if source in _REAL:
        if bits >= 32:
            return b.fptosi(x, kind)
        return b.trunc(b.fptosi(x, _kind(I32, x)), kind)
    if source == "bool":
        return b.zext(x, kind)
    found = _INTEGERS[source]
    if found == bits:
        return x
    if found > bits:
        return b.trunc(x, kind)
    return b.zext(x, kind) if source == "uint8" else b.sext(x, kind)


def _has_half(e: Emitter) -> bool:
    return e.target.name == "neon" or "+f16c" in e.target.features


def _bits(e: Emitter, x: V) -> V:
    """Return the bits of a float of 16 bits."""
    return (
        x if (x.type.element if isinstance(x.type, ir.VectorType) else x.type) == I16 else e.b.bitcast(x, _kind(I16, x))
    )


def _widen(e: Emitter, x: V, source: str) -> V:
    b = e.b
    if source == "float16" and _has_half(e):
        half = _kind(ir.HalfType(), x)
        return b.fpext(x if x.type == half else b.bitcast(x, half), _kind(F32, x))
    word = b.zext(_bits(e, x), _kind(I32, x))
    k = functools.partial(e.constant, kind=word.type)
    if source == "bfloat16":
        return b.bitcast(b.shl(word, k(16)), _kind(F32, x))
    sign = b.shl(b.and_(word, k(0x8000)), k(16))
    size = b.shl(b.and_(word, k(0x7FFF)), k(13))
    scaled = b.fmul(b.bitcast(size, _kind(F32, x)), e.constant(2.0**112, _kind(F32, x)))
    special = b.icmp_unsigned(">=", size, k(0x7C00 << 13))
    found = b.select(special, b.or_(size, k(0x7F800000)), b.bitcast(scaled, word.type))
    return b.bitcast(b.or_(found, sign), _kind(F32, x))


def _narrow(e: Emitter, x: V, target: str) -> V:
    """Round a float32 to 16 bits, as bits."""
    b = e.b
    if target == "float16" and _has_half(e):
        return b.bitcast(b.fptrunc(x, _kind(ir.HalfType(), x)), _kind(I16, x))
    word = b.bitcast(x, _kind(I32, x))
    k = functools.partial(e.constant, kind=word.type)
    nan = b.fcmp_unordered("uno", x, x)
    if target == "bfloat16":
        odd = b.and_(b.lshr(word, k(16)), k(1))
        rounded = b.lshr(b.add(b.add(word, k(0x7FFF)), odd), k(16))
        quiet = b.or_(b.lshr(word, k(16)), k(0x40))
        return b.trunc(b.select(nan, quiet, rounded), _kind(I16, x))
    sign = b.and_(b.lshr(word, k(16)), k(0x8000))
    size = b.and_(word, k(0x7FFFFFFF))
    odd = b.and_(b.lshr(size, k(13)), k(1))
    normal = b.lshr(b.add(b.add(size, k(0xFFF - (112 << 23))), odd), k(13))
    magic = k(0x3F000000)  # 0.5: its last bit is half precision's smallest denormal
    tiny = b.fadd(b.bitcast(size, x.type), b.bitcast(magic, x.type))
    tiny = b.sub(b.bitcast(tiny, word.type), magic)
    found = b.select(b.icmp_unsigned("<", size, k(113 << 23)), tiny, normal)
    found = b.select(b.icmp_unsigned(">=", size, k(0x477FF000)), k(0x7C00), found)
    found = b.select(nan, k(0x7E00), found)
    return b.trunc(b.or_(found, sign), _kind(I16, x))


def round_to_bfloat16(e: Emitter, x: V) -> V:
    """Return float32 rounded to nearest even bfloat16, as bits, by one instruction where the target has it.

    That instruction makes denormal numbers 0.
    """
    if not (e.target.bf16 and isinstance(x.type, ir.VectorType) and 32 * x.type.count == e.target.vector_bits == 512):
        return _narrow(e, x, "bfloat16")
    f = e.external("llvm.x86.avx512bf16.cvtneps2bf16.512", ir.VectorType(BFLOAT, 16), [x.type])
    return e.b.bitcast(e.b.call(f, [x]), _kind(I16, x))


def _narrow_double(e: Emitter, x: V) -> V:
    """Round a float64 to float16: to float32 towards odd first, so that the second rounding is the only one."""
    b = e.b
    near = b.fptrunc(x, _kind(F32, x))
    back = b.fpext(near, x.type)
    word = b.bitcast(near, _kind(I32, x))
    k = functools.partial(e.constant, kind=word.type)
    inexact = b.fcmp_ordered("!=", back, x)
    too_far = b.fcmp_ordered(">", e.call("llvm.fabs", x.type, [back]), e.call("llvm.fabs", x.type, [x]))
    towards_zero = b.select(too_far, b.sub(word, k(1)), word)
    odd = b.select(inexact, b.or_(towards_zero, k(1)), word)
    return _narrow(e, b.bitcast(odd, near.type), "float16")


def stored_as(dtype: Any) -> str:
    """Return the type by which elements are loaded and stored: float16 goes as its bits."""
    name = np.dtype(dtype).name
    return "uint16" if name == "float16" else name
