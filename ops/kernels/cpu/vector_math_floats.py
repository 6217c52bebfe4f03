"""Arithmetic on vectors of floats, as short as formulas: what the elementary functions are written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import llvmlite.ir as ir

from .emitter import F32, F64, I32, I64, Emitter, V


@dataclass(frozen=True)
class Format:
    """What a float type's bits mean.

    Attributes:
        digits: bits of the fraction, without the leading one.
        bias: of the exponent.
        ln2: a part of log 2 of so few bits that its product with an exponent is exact, and the rest.
        root_half: the bits of the square root of one half.
        lowest: where e to the x rounds to 0.
        highest: where it overflows.
    """

    one: ir.Type = field(repr=False)
    integer: ir.Type = field(repr=False)
    digits: int
    bias: int
    ln2: tuple[float, float]
    root_half: int
    lowest: float
    highest: float

    @property
    def magic(self) -> float:
        """A number whose last bit counts 1: adding it rounds to an integer, which its low bits then are."""
        return 1.5 * 2.0**self.digits


SINGLE = Format(F32, I32, 23, 127, (0.693359375, -2.12194440054690583e-4), 0x3F3504F3, -104.0, 89.0)
DOUBLE = Format(
    F64, I64, 52, 1023, (6.93147180369123816490e-01, 1.90821492927058770002e-10), 0x3FE6A09E667F3BCD, -746.0, 710.0
)


class Floats:
    """Writes arithmetic on vectors like one that it is shown; products and sums are fused only where `fma` says so."""

    def __init__(self, e: Emitter, x: V) -> None:
        """Work on values of the type of `x`."""
        self.e, self.b, self.kind = e, e.b, x.type
        self.lanes = x.type.count if isinstance(x.type, ir.VectorType) else 1
        one = x.type.element if self.lanes > 1 else x.type
        self.double = isinstance(one, ir.DoubleType)
        self.format = DOUBLE if self.double else SINGLE
        self.integers = self.like(self.format.integer)

    def like(self, one: ir.Type) -> ir.Type:
        """Return the vector type of these elements."""
        return one if self.lanes == 1 else ir.VectorType(one, self.lanes)

    def k(self, number: V | float) -> V:
        """Return a number as a vector; a vector as it is."""
        return number if hasattr(number, "type") else self.e.constant(number, self.kind)

    def i(self, number: int) -> V:
        """Return an integer as wide as the floats, in every lane."""
        return self.e.constant(number, self.integers)

    def add(self, x: Any, y: Any) -> V:
        """Sum."""
        return self.b.fadd(self.k(x), self.k(y))

    def sub(self, x: Any, y: Any) -> V:
        """Difference."""
        return self.b.fsub(self.k(x), self.k(y))

    def mul(self, x: Any, y: Any) -> V:
        """Product."""
        return self.b.fmul(self.k(x), self.k(y))

    def div(self, x: Any, y: Any) -> V:
        """Quotient."""
        return self.b.fdiv(self.k(x), self.k(y))

    def fma(self, x: Any, y: Any, z: Any) -> V:
        """x y + z, rounded once where the target can."""
        return self.e.fma(self.k(x), self.k(y), self.k(z))

    def sqrt(self, x: V) -> V:
        """Square root."""
        return self.e.call("llvm.sqrt", self.kind, [x])

    def fabs(self, x: V) -> V:
        """Absolute value."""
        return self.e.call("llvm.fabs", self.kind, [x])

    def copysign(self, size: V, sign: V) -> V:
        """The size of one with the sign of another."""
        return self.e.call("llvm.copysign", self.kind, [size, sign])

    def test(self, x: Any, how: str, y: Any) -> V:
        """Compare; false where one is NaN."""
        return self.b.fcmp_ordered(how, self.k(x), self.k(y))

    def nan(self, x: V) -> V:
        """Whether it is NaN."""
        return self.b.fcmp_unordered("uno", x, x)

    def select(self, condition: V, x: Any, y: Any) -> V:
        """Choose."""
        return self.b.select(condition, self.k(x), self.k(y))

    def at_least(self, x: V, low: float) -> V:
        """The larger of a value and a number; NaN stays."""
        return self.select(self.test(low, ">", x), low, x)

    def at_most(self, x: V, high: float) -> V:
        """The smaller of a value and a number; NaN stays."""
        return self.select(self.test(high, "<", x), high, x)

    def poly(self, coefficients: Sequence[float], x: V) -> V:
        """Return a polynomial, coefficients from the highest power down, by Horner's rule."""
        total = self.k(coefficients[0])
        for c in coefficients[1:]:
            total = self.fma(total, x, c)
        return total

    def bits(self, x: V) -> V:
        """Return the bits as integers."""
        return self.b.bitcast(x, self.integers)

    def floats(self, bits: V) -> V:
        """Return the floats of these bits."""
        return self.b.bitcast(bits, self.kind)

    def two_sum(self, large: Any, small: Any) -> tuple[V, V]:
        """Return a sum and its rounding error, of a number and one that is not larger (or where it is 0)."""
        total = self.add(large, small)
        return total, self.sub(small, self.sub(total, large))

    def two_product(self, x: V, y: V) -> tuple[V, V]:
        """Return a product and its rounding error. Source: Dekker 1971, where the target has no fused product."""
        p = self.mul(x, y)
        if self.e.target.fma:
            return p, self.fma(x, y, self.b.fneg(p))
        xh, xl = self.halves(x)
        yh, yl = self.halves(y)
        rest = self.sub(self.mul(xh, yh), p)
        rest = self.add(self.add(rest, self.mul(xh, yl)), self.mul(xl, yh))
        return p, self.add(rest, self.mul(xl, yl))

    def halves(self, x: V) -> tuple[V, V]:
        """Return two numbers of half the digits whose sum this is."""
        keep = (1 << 64) - (1 << 27) if self.double else (1 << 32) - (1 << 12)
        high = self.floats(self.b.and_(self.bits(x), self.i(keep)))
        return high, self.sub(x, high)

    def power_of_two(self, n: V) -> V:
        """Return 2 to the n, of integers (as floats) for which it is neither denormal nor infinite."""
        shifted = self.bits(self.add(n, self.format.magic + self.format.bias))
        return self.floats(self.b.shl(shifted, self.i(self.format.digits)))

    def scale(self, x: V, n: V) -> V:
        """Return x 2^n, for x about 1 and any integer n (as a float); denormals are rounded once."""
        found = self.scale_directly(x, n)
        if found is not None:
            return found
        first = self.at_least(self.at_most(n, self.format.bias), 2 - self.format.bias)
        return self.mul(self.mul(x, self.power_of_two(first)), self.power_of_two(self.sub(n, first)))

    def scale_directly(self, x: V, n: V) -> V | None:
        """Return x 2^n by one instruction, where there is one."""
        bits = self.lanes * (64 if self.double else 32)
        if self.e.target.name != "avx512" or bits < 128 or bits % 128:
            return None
        if bits > 512:
            return self._in_halves(x, n)
        mask = ir.IntType(max(8, self.lanes))
        name = f"llvm.x86.avx512.mask.scalef.{'pd' if self.double else 'ps'}.{bits}"
        rounding = [I32(4)] if bits == 512 else []  # as the environment has it
        f = self.e.external(name, self.kind, [self.kind] * 3 + [mask] + [I32] * len(rounding))
        return self.b.call(f, [x, n, ir.Constant(self.kind, ir.Undefined), mask(-1), *rounding])

    def _in_halves(self, x: V, n: V) -> V:
        half = self.lanes // 2
        undefined = ir.Constant(self.kind, ir.Undefined)
        parts = []
        for start in (0, half):
            pick = ir.Constant(ir.VectorType(I32, half), list(range(start, start + half)))
            pair = [self.b.shuffle_vector(v, undefined, pick) for v in (x, n)]
            parts.append(Floats(self.e, pair[0]).scale(*pair))
        return self.b.shuffle_vector(*parts, ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes))))

    def nearest_product(self, x: V, factor: float) -> V:
        """Return the integer nearest to a product that is far smaller than the largest exact integer."""
        return self.sub(self.fma(x, factor, self.format.magic), self.format.magic)

    def mantissa(self, x: V) -> tuple[V, V]:
        """Return m and n (as a float) of m 2^n with m from root 1/2 to root 2, of finite positive numbers."""
        f = self.format
        tiny = self.test(x, "<", 2.0 ** (1 - f.bias))
        bits = self.bits(self.select(tiny, self.mul(x, 2.0**f.digits), x))
        shifted = self.b.sub(bits, self.i(f.root_half - ((f.bias + 1) << f.digits)))
        exponent = self.b.lshr(shifted, self.i(f.digits))
        fraction = self.b.and_(shifted, self.i((1 << f.digits) - 1))
        m = self.floats(self.b.add(fraction, self.i(f.root_half)))
        # an integer put into the digits of 2^digits is a float at once
        whole = (f.bias + f.digits) << f.digits
        n = self.floats(self.b.or_(exponent, self.i(whole)))
        offset = 2.0**f.digits + f.bias + 1
        return m, self.sub(n, self.select(tiny, offset + f.digits, offset))

    # roundings to integers ----------------------------------------------------------------------------------------

    def round(self, x: V, fn: str) -> V:
        """Apply `floor`, `ceil`, `trunc` or `round` (halves to even)."""
        if self.e.target.name != "baseline":
            name = {"round": "llvm.roundeven"}.get(fn, f"llvm.{fn}")
            return self.e.call(name, self.kind, [x])
        whole = 2.0**self.format.digits
        size = self.fabs(x)
        near = self.sub(self.add(size, whole), whole)
        if fn == "trunc":
            near = self.sub(near, self.select(self.test(near, ">", size), 1, 0))
        near = self.copysign(near, x)
        if fn == "floor":
            near = self.sub(near, self.select(self.test(near, ">", x), 1, 0))
        if fn == "ceil":
            near = self.copysign(self.add(near, self.select(self.test(near, "<", x), 1, 0)), x)
        return self.select(self.test(size, "<", whole), near, x)
