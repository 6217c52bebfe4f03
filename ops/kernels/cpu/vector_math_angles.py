"""Sine, cosine and tangent as vector code, of angles of any size."""

from __future__ import annotations

import itertools

import llvmlite.ir as ir
import numpy as np

from .emitter import F64, I64, PTR, VOID, Emitter, V
from .vector_math_floats import DOUBLE, Floats

_LARGE = 1e5
"""From here on the parts of pi / 2 do not suffice."""

# parts of pi / 2 of 33 bits, so that products with a quadrant are exact
_PARTS32 = (1.5707963267341256, 6.077100506506192e-11)
_PARTS64 = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
_TWO_OVER_PI = 0.6366197723675814

# (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 in r^2, |r| <= pi / 4: 2^-27.9, 2^-57.8; 2^-33.1, 2^-64
_SIN32 = (-1.9510841e-04, 8.332131e-03, -1.6666654e-01)
_SIN64 = (1.5893596038336985e-10, -2.5050704332544588e-08, 2.7557313358557536e-06, -0.00019841269828879828,
          0.008333333333321301, -0.16666666666666627)  # fmt: skip
_COS32 = (2.4431247e-05, -1.3887307e-03, 4.1666646e-02)
_COS64 = (-1.1357450213668431e-11, 2.087568192233868e-09, -2.7557314057015993e-07, 2.480158728849419e-05,
          -0.0013888888888872603, 0.04166666666666659)  # fmt: skip

_DIGITS = 1344
_TWO_OVER_PI_DIGITS = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73e"
    "e88235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b7"
    "4f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361da9e391615ee61b08",
    16,
)
"""The first binary digits of 2 / pi."""


def _reducer(e: Emitter) -> V:
    """Return the function `reduce(x, r, quadrant)` of one large float64. Source: Payne & Hanek 1983.

    Of x 2 / pi only the digits that are not whole turns matter: the number's 53 bits times 192 bits of 2 / pi.
    """
    name = "reduce_large_angle"
    found = e.module.globals.get(name)
    if found is not None:
        return found
    words = [0] + [(_TWO_OVER_PI_DIGITS >> (_DIGITS - 64 * (i + 1))) & (2**64 - 1) for i in range(_DIGITS // 64)]
    table = ir.GlobalVariable(e.module, ir.ArrayType(I64, len(words)), f"{name}.digits")
    table.initializer = ir.Constant(table.value_type, words)
    table.linkage, table.global_constant = "internal", True

    f = ir.Function(e.module, ir.FunctionType(VOID, [F64, PTR, PTR]), name)
    f.linkage = "internal"
    x, r_place, quadrant_place = f.args
    b = ir.IRBuilder(f.append_basic_block("entry"))
    bits = b.bitcast(x, I64)
    size = b.and_(bits, I64(2**63 - 1))
    large = b.icmp_unsigned(">=", size, I64(int(np.float64(_LARGE).view(np.int64))))
    large = b.and_(large, b.icmp_unsigned("<", size, I64(0x7FF << 52)))
    with b.if_then(large):
        mantissa = b.or_(b.and_(size, I64(2**52 - 1)), I64(2**52))
        first = b.sub(b.lshr(size, I64(52)), I64(DOUBLE.bias + DOUBLE.digits + 2 - 64))
        place = b.gep(table, [b.lshr(first, I64(6))], source_etype=I64)
        shift = b.and_(first, I64(63))
        loaded = [b.load(b.gep(place, [I64(i)], source_etype=I64), typ=I64, align=8) for i in range(4)]
        parts = [
            b.or_(b.shl(high, shift), b.lshr(b.lshr(low, I64(1)), b.sub(I64(63), shift)))
            for high, low in itertools.pairwise(loaded)
        ]
        wide = ir.IntType(128)
        long = b.zext(mantissa, wide)
        last = b.mul(long, b.zext(parts[2], wide))
        middle = b.add(b.mul(long, b.zext(parts[1], wide)), b.lshr(last, wide(64)))
        high = b.add(b.mul(mantissa, parts[0]), b.trunc(b.lshr(middle, wide(64)), I64))
        middle, last = b.trunc(middle, I64), b.trunc(last, I64)
        quadrant = b.lshr(b.add(high, I64(1 << 61)), I64(62))
        fraction = b.or_(b.shl(high, I64(2)), b.lshr(middle, I64(62)))
        rest = b.or_(b.shl(middle, I64(2)), b.lshr(last, I64(62)))
        tail = b.fmul(b.sitofp(b.lshr(rest, I64(11)), F64), F64(2.0**-117))
        tail = b.fadd(b.fmul(b.sitofp(b.and_(fraction, I64(0x7FF)), F64), F64(2.0**-64)), tail)
        turn = b.fadd(b.fmul(b.sitofp(b.and_(fraction, I64(-0x800)), F64), F64(2.0**-64)), tail)
        r = b.fmul(turn, F64(np.pi / 2))
        negative = b.icmp_signed("<", bits, I64(0))
        b.store(b.select(negative, b.fneg(r), r), r_place, align=8)
        b.store(b.select(negative, b.sub(I64(0), quadrant), quadrant), quadrant_place, align=8)
    b.ret_void()
    return f


def _reduced(m: Floats, x: V) -> tuple[V, V]:
    """Return r, |r| <= pi / 4, and the integer k of x = k pi / 2 + r; k counts modulo 4."""
    d = m if m.double else Floats(m.e, m.b.fpext(x, m.like(F64)))
    wide = x if m.double else m.b.fpext(x, d.kind)
    t = d.add(d.mul(wide, _TWO_OVER_PI), d.format.magic)
    n = d.sub(t, d.format.magic)
    r = wide
    for part in _PARTS64 if m.double else _PARTS32:
        r = d.fma(n, -part, r)
    k = d.bits(t)
    size = d.fabs(wide)
    large = m.b.and_(d.test(size, ">=", _LARGE), d.test(size, "<", np.inf))
    r, k = _corrected(d, wide, r, k, large)
    if m.double:
        return r, k
    return m.b.fptrunc(r, m.kind), m.b.trunc(k, m.integers)


def _corrected(d: Floats, x: V, r: V, k: V, large: V) -> tuple[V, V]:
    """Return r and k, made anew where angles are large."""
    e, b = d.e, d.b
    function = _reducer(e)
    with b.goto_entry_block():
        places = [b.alloca(v.type) for v in (x, r, k)]
    word = large if d.lanes == 1 else b.bitcast(large, ir.IntType(d.lanes))
    before = b.block
    with b.if_then(b.icmp_unsigned("!=", word, word.type(0)), likely=False):
        for v, place in zip((x, r, k), places, strict=True):
            b.store(v, place)
        with e.loop(0, d.lanes) as lane:
            at = [b.gep(place, [lane.index], source_etype=I64) for place in places]
            b.call(function, [b.load(at[0], typ=F64, align=8), at[1], at[2]])
        anew = [b.load(place, typ=v.type) for v, place in zip((r, k), places[1:], strict=True)]
        inside = b.block
    out = []
    for old, new in zip((r, k), anew, strict=True):
        phi = b.phi(old.type)
        phi.add_incoming(old, before)
        phi.add_incoming(new, inside)
        out.append(phi)
    return out[0], out[1]


def _sine_near(m: Floats, r: V) -> V:
    z = m.mul(r, r)
    return m.fma(m.mul(r, z), m.poly(_SIN64 if m.double else _SIN32, z), r)


def _cosine_near(m: Floats, r: V) -> V:
    z = m.mul(r, r)
    half = m.mul(z, 0.5)
    w = m.sub(1, half)
    lost = m.sub(m.sub(1, w), half)
    return m.add(w, m.fma(m.mul(z, z), m.poly(_COS64 if m.double else _COS32, z), lost))


def _odd(m: Floats, k: V) -> V:
    return m.b.icmp_signed("!=", m.b.and_(k, m.i(1)), m.i(0))


def _wave(m: Floats, r: V, k: V) -> V:
    """Return the sine of k pi / 2 + r."""
    y = m.select(_odd(m, k), _cosine_near(m, r), _sine_near(m, r))
    width = m.format.integer.width
    return m.floats(m.b.xor(m.bits(y), m.b.shl(m.b.and_(k, m.i(2)), m.i(width - 2))))


def _tiny(m: Floats, x: V) -> V:
    return m.test(m.fabs(x), "<", 2.0**-27 if m.double else 2.0**-13)


def sin(m: Floats, x: V) -> V:
    """Return the sine."""
    r, k = _reduced(m, x)
    return m.select(_tiny(m, x), x, _wave(m, r, k))


def cos(m: Floats, x: V) -> V:
    """Return the cosine."""
    r, k = _reduced(m, x)
    return _wave(m, r, m.b.add(k, m.i(1)))


def tan(m: Floats, x: V) -> V:
    """Return the tangent, of float64s."""
    r, k = _reduced(m, x)
    s, c = _sine_near(m, r), _cosine_near(m, r)
    odd = _odd(m, k)
    y = m.div(m.select(odd, m.b.fneg(c), s), m.select(odd, s, c))
    return m.select(_tiny(m, x), x, y)
