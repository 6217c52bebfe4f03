"""What a contraction multiplies and adds: floats, or pairs of bfloat16 and groups of four bytes in 32-bit words.

A group of four bytes of A and one of B give the sum of four products, exactly: by `vpdpbusd` where the target has it,
through 16 bits (`pmaddwd`; not `pmaddubsw`, which saturates) on other x86, and through 32 bits elsewhere. Of a pair of
bfloat16 and another one both products are added in float32, by `vdpbf16ps`; there is no code where the target lacks it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import llvmlite.ir as ir

from ...errors import KernelError
from .emitter import BFLOAT, I32, Emitter, V

Products: TypeAlias = Literal["floats", "bfloat16", "unsigned", "signed"]
"""Floats, pairs of bfloat16, or bytes: those of A are unsigned or signed, those of B signed. To signed ones 128 is
added, which the caller takes off."""


class Arithmetic(Protocol):
    """How to multiply and add; each element of A and vector of B is made ready once and used several times."""

    def left(self, value: V) -> V:
        """Return an element of A, in every lane, ready to multiply."""

    def right(self, vector: V) -> V:
        """Return a vector of B, ready to multiply."""

    def add(self, total: V, left: V, right: V) -> V:
        """Return a sum with a product added."""


def arithmetic(e: Emitter, products: Products) -> Arithmetic:
    """Return how these are multiplied on the target."""
    if products == "floats":
        return _Floats(e)
    if products == "bfloat16":
        if not e.target.bf16:
            raise KernelError(f"{e.prefix}: {e.target.name} has no products of bfloat16")
        return _Bfloats(e)
    if e.target.vnni and e.target.vector_bits == 512:
        return _Groups(e, products)
    return (_Pairs if e.target.name in ("avx512", "avx2", "baseline") else _Singles)(e, products)


class _Floats:
    def __init__(self, e: Emitter) -> None:
        self.e = e

    def left(self, value: V) -> V:
        return value

    def right(self, vector: V) -> V:
        return vector

    def add(self, total: V, left: V, right: V) -> V:
        return self.e.fma(left, right, total)


class _Bfloats(_Floats):
    """Two products of bfloat16, summed in float32, in one instruction; denormal numbers count as 0."""

    def left(self, value: V) -> V:
        return self.e.b.bitcast(value, ir.VectorType(BFLOAT, 2 * value.type.count))

    def right(self, vector: V) -> V:
        return self.left(vector)

    def add(self, total: V, left: V, right: V) -> V:
        f = self.e.external("llvm.x86.avx512bf16.dpbf16ps.512", total.type, [total.type, left.type, right.type])
        return self.e.b.call(f, [total, left, right])


class _Groups:
    """Four products in one instruction."""

    def __init__(self, e: Emitter, products: Products) -> None:
        self.e, self.signed = e, products == "signed"

    def left(self, value: V) -> V:
        return self.e.b.xor(value, _like(value, -0x7F7F7F80)) if self.signed else value

    def right(self, vector: V) -> V:
        return vector

    def add(self, total: V, left: V, right: V) -> V:
        f = self.e.external("llvm.x86.avx512.vpdpbusd.512", total.type, [total.type] * 3)
        return self.e.b.call(f, [total, left, right])


class _Pairs(_Groups):
    """Two products of 16 bits in one instruction, even bytes and odd bytes apart."""

    _NAMES: ClassVar[dict[int, str]] = {
        128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"
    }  # fmt: skip

    def left(self, value: V) -> V:
        value = super().left(value)
        b, low = self.e.b, _like(value, 0x00FF00FF)
        return (b.and_(value, low), b.and_(b.lshr(value, _like(value, 8)), low))

    def right(self, vector: V) -> V:
        b = self.e.b
        kind = ir.VectorType(ir.IntType(16), 2 * vector.type.count)
        halves = b.bitcast(vector, kind)
        eight = ir.Constant(kind, [8] * kind.count)
        return (b.ashr(b.shl(halves, eight), eight), b.ashr(halves, eight))

    def add(self, total: V, left: V, right: V) -> V:
        b = self.e.b
        for x, y in zip(left, right, strict=True):
            f = self.e.external(self._NAMES[32 * total.type.count], total.type, [y.type, y.type])
            total = b.add(total, b.call(f, [b.bitcast(x, y.type), y]))
        return total


class _Singles(_Groups):
    """One product of 32 bits after the other."""

    def left(self, value: V) -> V:
        value = super().left(value)
        b = self.e.b
        return [b.and_(b.lshr(value, _like(value, 8 * i)), _like(value, 255)) for i in range(4)]

    def right(self, vector: V) -> V:
        b = self.e.b
        top = _like(vector, 24)
        return [b.ashr(b.shl(vector, _like(vector, 24 - 8 * i)), top) for i in range(4)]

    def add(self, total: V, left: V, right: V) -> V:
        b = self.e.b
        for x, y in zip(left, right, strict=True):
            total = b.add(total, b.mul(x, y))
        return total


def _like(value: V, number: int) -> Any:
    return ir.Constant(value.type, [I32(number)] * value.type.count)
