"""Exponentials, logarithms and what is made of them, as vector code for float32 and float64.

Polynomials are minimax, found by Remez exchange; the comments tell the error relative to the whole result.
"""

from __future__ import annotations

import numpy as np

from .emitter import V
from .vector_math_floats import Floats

_LOG2_E = 1.4426950408889634

# (e^r - 1 - r) / r^2, |r| <= log(2) / 2: 2^-28.2 and 2^-57.8
_EXP32 = (1.381319e-03, 8.369412e-03, 4.1668456e-02, 1.6666515e-01, 4.9999994e-01)
_EXP64 = (2.4998445856147276e-08, 2.763164526026661e-07, 2.7557598967856618e-06, 2.4801489488975054e-05,
          0.0001984126948414525, 0.001388888894676388, 0.00833333333350856, 0.04166666666651988, 0.16666666666666385,
          0.5000000000000011)  # fmt: skip
# the same, for e^r - 1 as the result: 2^-31.9 and 2^-61.6
_EXPM1_32 = (1.9915748e-04, 1.3942048e-03, 8.33327e-03, 4.1666344e-02, 1.6666667e-01, 0.5)
_EXPM1_64 = (2.092537239631711e-09, 2.5110176474124652e-08, 2.75572397699737e-07, 2.7557241171759104e-06,
             2.4801587364022598e-05, 0.00019841269888884257, 0.0013888888888865106, 0.00833333333332066,
             0.041666666666666706, 0.16666666666666677, 0.5)  # fmt: skip
# (log(1 + f) - f + f^2 / 2) / f^3, f from root 1/2 - 1 to root 2 - 1: 2^-30.3
_LOG32 = (6.917153e-02, -1.1790473e-01, 1.18724465e-01, -1.2384196e-01, 1.4218724e-01, -1.6669263e-01, 2.0002222e-01,
          -2.4999987e-01, 3.333331e-01)  # fmt: skip
# (2 atanh(s) / s - 2) / s^2 in s^2: 2^-58.5
_LOG64 = (0.1479878638467723, 0.1531378795834411, 0.18183573727763455, 0.22222198409707428, 0.2857142874380409,
          0.39999999999409125, 0.6666666666666735)  # fmt: skip
# (2 atanh(s) / s - 2 - 2 s^2 / 3) / s^4 in s^2: 2^-72.5
_LOG64_TAIL = (0.11991744815071696, 0.11674496235233227, 0.1333633295362878, 0.153845564780572, 0.18181818875878905,
               0.22222222217493076, 0.2857142857144528, 0.3999999999999998)  # fmt: skip
# (tanh(x) / x - 1) / x^2 in x^2, |x| <= 0.63: 2^-27.7
_TANH32 = (-5.6794183e-03, 2.0618318e-02, -5.37341e-02, 1.3331385e-01, -3.333328e-01)
# erf(x) / x - 1 in x^2: |x| <= 0.9375, 2^-30.9; |x| <= 1, 2^-62.8
_ERF32 = (8.29661e-05, -8.125809e-04, 5.1996005e-03, -2.6858851e-02, 1.1283686e-01, -3.7612632e-01, 1.2837917e-01)
_ERF64 = (5.960685338520971e-11, -1.137495573607015e-09, 1.466032872274226e-08, -1.6350396222864617e-07,
          1.64610084778027e-06, -1.4925595772180906e-05, 0.0001205533113295582, -0.0008548326981425542,
          0.005223977624828431, -0.026866170645077875, 0.11283791670954885, -0.3761263890318375,
          0.1283791670955126)  # fmt: skip
# log(1 - erf(x)), x from 0.92 to 4.1: 2^-29.3
_ERFC32 = (1.9494451e-04, -3.033671e-03, 2.2189694e-02, -1.03856206e-01, -6.372659e-01, -1.1276273e00, -2.0703302e-04)
# e^(x^2) (1 - erf(x)) in (x - 2.5) / (x + 2.5), x from 1 to 6: 2^-61.3
_ERFC64 = (7.528093804272699e-06, 1.675673526627449e-05, -3.574519089342964e-05, -0.00012948640574713847,
           0.00022826742058643212, 0.0008759136069168259, -0.002642362725799347, -0.003993700619715444,
           0.03992253909516594, -0.1250330523817291, 0.2517131932171881, -0.3717367339489765,
           0.2108063640611437)  # fmt: skip


def _reduced(m: Floats, x: V) -> tuple[V, V]:
    """Return n, an integer as a float, and r of x = n log 2 + r, |r| <= log(2) / 2."""
    n = m.nearest_product(x, _LOG2_E)
    high, low = m.format.ln2
    return n, m.fma(n, -low, m.fma(n, -high, x))


def _exp_near(m: Floats, r: V) -> V:
    """Return e^r for |r| <= log(2) / 2."""
    p = m.poly(_EXP64 if m.double else _EXP32, r)
    return m.add(m.fma(m.mul(r, r), p, r), 1)


def exp(m: Floats, x: V, halvings: int = 0) -> V:
    """Return e^x / 2^halvings."""
    x = m.at_most(m.at_least(x, m.format.lowest), m.format.highest + halvings)
    n, r = _reduced(m, x)
    return m.scale(_exp_near(m, r), m.sub(n, halvings) if halvings else n)


def exp_moderate(m: Floats, x: V) -> V:
    """Return e^x where neither the result nor its reciprocal is near the largest number."""
    n, r = _reduced(m, x)
    p = _exp_near(m, r)
    found = m.scale_directly(p, n)
    return found if found is not None else m.mul(p, m.power_of_two(n))


def expm1(m: Floats, x: V) -> V:
    """Return e^x - 1."""
    x = m.at_most(m.at_least(x, -40.0), m.format.highest)
    n, r = _reduced(m, x)
    q = m.fma(m.mul(r, r), m.poly(_EXPM1_64 if m.double else _EXPM1_32, r), r)
    # 2^n may be infinite where the result is not: with half of it
    half = m.power_of_two(m.sub(n, 1))
    far = m.fma(half, q, m.sub(half, 0.5))
    return m.copysign(m.select(m.test(n, "==", 0), q, m.add(far, far)), x)


def _log_parts(m: Floats, f: V, n: V, correction: V | None = None) -> V:
    """Return log(1 + f) + n log 2 + correction, f from root 1/2 - 1 to root 2 - 1."""
    high, low = m.format.ln2
    rest = m.mul(n, low) if correction is None else m.fma(n, low, correction)
    square = m.mul(f, f)
    if m.double:
        s = m.div(f, m.add(f, 2))
        z = m.mul(s, s)
        half = m.mul(square, 0.5)
        rest = m.fma(s, m.fma(m.poly(_LOG64, z), z, half), rest)
        return m.fma(n, high, m.sub(f, m.sub(half, rest)))
    rest = m.fma(m.mul(f, square), m.poly(_LOG32, f), rest)
    rest = m.fma(square, -0.5, rest)
    return m.fma(n, high, m.add(f, rest))


def _log_special(m: Floats, x: V, y: V, zero: float) -> V:
    """Return y where x is from `zero`, where a logarithm is -inf, to inf, both not included; else the special value."""
    y = m.select(m.test(x, "<", np.inf), y, x)
    y = m.select(m.test(x, "<", zero), np.nan, y)
    return m.select(m.test(x, "==", zero), -np.inf, y)


def log(m: Floats, x: V) -> V:
    """Return the natural logarithm."""
    mantissa, n = m.mantissa(x)
    return _log_special(m, x, _log_parts(m, m.sub(mantissa, 1), n), 0.0)


def _log1p_finite(m: Floats, x: V) -> V:
    """Return log(1 + x) for finite x above -1."""
    u = m.add(x, 1)
    back = m.sub(u, 1)
    lost = m.add(m.sub(x, back), m.sub(1, m.sub(u, back)))
    mantissa, n = m.mantissa(u)
    return _log_parts(m, m.sub(mantissa, 1), n, m.div(lost, u))


def log1p(m: Floats, x: V) -> V:
    """Return log(1 + x)."""
    return m.copysign(_log_special(m, x, _log1p_finite(m, x), -1.0), x)


def _exp_twice(m: Floats, x: V) -> tuple[V, V]:
    """Return e^x for x <= 0 (or moderate), and what it lacks: the part of it that its last rounding took away."""
    n, r = _reduced(m, m.at_least(x, m.format.lowest))
    p = m.fma(m.mul(r, r), m.poly(_EXP64 if m.double else _EXP32, r), r)
    y, lost = m.two_sum(1, p)
    return m.scale(y, n), m.fma(m.b.fneg(lost), r, lost)


def sigmoid(m: Floats, x: V) -> V:
    """Return 1 / (1 + e^-x), of large negative x too: there z / (1 + z) = z - z (z / (1 + z)), z = e^x."""
    z, lost = _exp_twice(m, m.b.fneg(m.fabs(x)))
    y = m.div(m.select(m.test(x, "<", 0), z, 1), m.add(z, 1))
    return m.select(m.test(x, "<", -1), m.fma(z, m.sub(lost, y), z), y)


def softplus(m: Floats, x: V) -> V:
    """Return log(1 + e^x)."""
    z = exp(m, m.b.fneg(m.fabs(x)))
    return m.add(m.at_least(x, 0.0), _log1p_finite(m, z))


def tanh(m: Floats, x: V) -> V:
    """Return the hyperbolic tangent."""
    size = m.fabs(x)
    if m.double:
        u = expm1(m, m.at_most(m.add(size, size), 44.0))
        return m.copysign(m.div(u, m.add(u, 2)), x)
    z = m.mul(size, size)
    near = m.fma(m.mul(size, z), m.poly(_TANH32, z), size)
    far = exp_moderate(m, m.at_most(m.add(size, size), 20.0))
    far = m.sub(1, m.div(2, m.add(far, 1)))
    return m.copysign(m.select(m.test(size, "<", 0.625), near, far), x)


def tanh_softplus(m: Floats, x: V) -> V:
    """Return tanh(log(1 + e^x)) = 1 - 2 / (n + 2), n = w (w + 2), w = e^x; of negative x w - w w (w + 1) / (n + 2)."""
    w, lost = _exp_twice(m, m.at_most(x, 44.0 if m.double else 22.0))
    negative = m.test(x, "<", 0)
    below = m.fma(w, w, m.add(m.add(w, w), 2))
    y = m.div(m.select(negative, m.fma(w, w, w), 2), below)
    return m.select(negative, m.fma(w, m.sub(lost, y), w), m.sub(1, y))


def erf(m: Floats, x: V) -> V:
    """Return the error function."""
    size = m.fabs(x)
    if not m.double:
        z = m.mul(size, size)
        near = m.fma(m.poly(_ERF32, z), size, size)
        size = m.at_most(size, 4.0)
        far = m.sub(1, exp_moderate(m, m.poly(_ERFC32, size)))
        return m.copysign(m.select(m.test(size, "<", 0.9277), near, far), x)
    size = m.at_most(size, 6.0)
    z = m.mul(size, size)
    near = m.fma(m.poly(_ERF64, z), size, size)
    t = m.div(m.sub(size, 2.5), m.add(size, 2.5))
    far = m.sub(1, m.mul(exp_moderate(m, m.b.fneg(z)), m.poly(_ERFC64, t)))
    return m.copysign(m.select(m.test(size, "<", 1.0), near, far), x)


def _log_twice(m: Floats, x: V) -> tuple[V, V]:
    """Return the natural logarithm of finite positive float64s as a sum of two numbers."""
    mantissa, n = m.mantissa(x)
    f, g = m.sub(mantissa, 1), m.add(mantissa, 1)
    s = m.div(f, g)
    product, error = m.two_product(s, g)
    rest = m.sub(m.sub(m.sub(f, product), error), m.mul(s, m.sub(mantissa, m.sub(g, 1))))
    s_low = m.div(rest, g)
    z, z_low = m.two_product(s, s)
    z_low = m.fma(m.add(s, s), s_low, z_low)
    cube, cube_low = m.two_product(z, s)
    cube_low = m.add(cube_low, m.fma(z, s_low, m.mul(z_low, s)))
    third, third_low = m.two_product(cube, m.k(0.6666666666666666))
    third_low = m.add(third_low, m.fma(cube_low, 0.6666666666666666, m.mul(cube, 3.700743415417188e-17)))
    high, low = m.format.ln2
    total, e1 = m.two_sum(m.mul(n, high), m.add(s, s))
    total, e2 = m.two_sum(total, third)
    tail = m.fma(m.mul(z, cube), m.poly(_LOG64_TAIL, z), m.mul(n, low))
    tail = m.add(tail, m.add(m.add(s_low, s_low), third_low))
    return m.two_sum(total, m.add(m.add(e1, e2), tail))


def power(m: Floats, x: V, y: V, *, precise: bool) -> V:
    """Return x to the y of float64s, as C's pow defines it.

    Args:
        m: the arithmetic.
        x: base.
        y: exponent.
        precise: whether the logarithm needs more than float64's digits, as for a result of that type.
    """
    size = m.fabs(x)
    if precise:
        high, low = _log_twice(m, size)
    else:
        mantissa, n = m.mantissa(size)
        high = _log_parts(m, m.sub(mantissa, 1), n)
    high = m.select(m.test(size, "==", 0), -np.inf, high)
    high = m.select(m.test(size, "==", np.inf), np.inf, high)
    one = m.test(high, "==", 0)
    p = m.select(one, 0, m.mul(y, high))
    clamped = m.at_most(m.at_least(p, m.format.lowest), m.format.highest)
    n, r = _reduced(m, clamped)
    if precise:
        _, error = m.two_product(y, high)
        near = m.b.and_(m.test(m.fabs(p), "<", 800), m.b.not_(one))
        r = m.add(r, m.select(near, m.fma(y, low, error), 0))
    z = m.scale(_exp_near(m, r), n)
    half = m.mul(y, 0.5)
    whole = m.test(m.round(y, "floor"), "==", y)
    odd = m.b.and_(whole, m.test(m.round(half, "floor"), "!=", half))
    z = m.select(odd, m.copysign(z, x), z)
    negative = m.b.and_(m.test(x, "<", 0), m.test(x, ">", -np.inf))
    undefined = m.b.or_(m.b.and_(negative, m.b.not_(whole)), m.b.fcmp_unordered("uno", x, y))
    z = m.select(undefined, np.nan, z)
    return m.select(m.b.or_(m.test(y, "==", 0), m.test(x, "==", 1)), 1, z)


# inverse and hyperbolic functions of float64 -------------------------------------------------------------------------

# (atan(x) / x - 1) / x^2 in x^2, |x| <= root 2 - 1: 2^-59.5
_ATAN = (-0.017908153353985632, 0.03806574255570304, -0.05039364061777385, 0.058479053583216305, -0.06663106649331037,
         0.07692060477657336, -0.09090897774380306, 0.11111110784105091, -0.14285714280210873, 0.19999999999953746,
         -0.333333333333332)  # fmt: skip
# (asin(x) / x - 1) / x^2 in x^2, |x| <= 1/2: 2^-59.8
_ASIN = (0.03270036507980461, -0.021113736910840158, 0.021788450496850374, 0.003673130897764836, 0.010789057199440786,
         0.011397343075698264, 0.013981011975447136, 0.01735159609494745, 0.022372215869274945, 0.03038194267675163,
         0.04464285717525019, 0.07499999999970144, 0.16666666666666763)  # fmt: skip
_HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
_QUARTER_PI = (0.7853981633974483, 3.061616997868383e-17)
_LOG_2 = 0.6931471805599453


def sinh(m: Floats, x: V) -> V:
    """Return the hyperbolic sine."""
    size = m.fabs(x)
    t = expm1(m, m.at_most(size, 2.0))
    near = m.mul(m.add(t, m.div(t, m.add(t, 1))), 0.5)
    half = exp(m, size, halvings=1)
    return m.copysign(m.select(m.test(size, "<", 1), near, m.sub(half, m.div(0.25, half))), x)


def cosh(m: Floats, x: V) -> V:
    """Return the hyperbolic cosine."""
    half = exp(m, m.fabs(x), halvings=1)
    return m.add(half, m.div(0.25, half))


def asinh(m: Floats, x: V) -> V:
    """Return the inverse hyperbolic sine."""
    size = m.fabs(x)
    square = m.mul(size, size)
    large = m.test(size, ">", 2.0**54)
    u = m.add(size, m.div(square, m.add(m.sqrt(m.add(square, 1)), 1)))
    y = m.add(log1p(m, m.select(large, size, u)), m.select(large, _LOG_2, 0))
    return m.copysign(y, x)


def acosh(m: Floats, x: V) -> V:
    """Return the inverse hyperbolic cosine."""
    t = m.sub(x, 1)
    large = m.test(x, ">", 2.0**54)
    u = m.add(t, m.sqrt(m.fma(t, t, m.add(t, t))))
    y = m.add(log1p(m, m.select(large, x, u)), m.select(large, _LOG_2, 0))
    return m.select(m.test(x, "<", 1), np.nan, y)


def atanh(m: Floats, x: V) -> V:
    """Return the inverse hyperbolic tangent."""
    size = m.fabs(x)
    u = m.div(m.add(size, size), m.sub(1, size))
    return m.copysign(m.mul(log1p(m, u), 0.5), x)


def atan(m: Floats, x: V) -> V:
    """Return the inverse tangent."""
    size = m.fabs(x)
    middle, far = m.test(size, ">", 0.4142135623730950), m.test(size, ">", 2.414213562373095)
    top = m.select(far, -1, m.select(middle, m.sub(size, 1), size))
    bottom = m.select(far, size, m.select(middle, m.add(size, 1), 1))
    t = m.div(top, bottom)
    z = m.mul(t, t)
    low = m.select(far, _HALF_PI[1], m.select(middle, _QUARTER_PI[1], 0))
    near = m.add(t, m.fma(m.mul(t, z), m.poly(_ATAN, z), low))
    return m.copysign(m.add(m.select(far, _HALF_PI[0], m.select(middle, _QUARTER_PI[0], 0)), near), x)


def _asin_parts(m: Floats, x: V) -> tuple[V, V, V, V]:
    """Return |x|, whether it is above 1/2, and a sum of two: asin |x|, or above 1/2 asin of root((1 - |x|) / 2)."""
    size = m.fabs(x)
    large = m.test(size, ">", 0.5)
    z = m.select(large, m.mul(m.sub(1, size), 0.5), m.mul(size, size))
    root = m.sqrt(z)
    high, _ = m.halves(root)
    lost = m.div(m.sub(z, m.mul(high, high)), m.add(m.add(root, high), 1e-300))
    s = m.select(large, root, size)
    tail = m.mul(m.mul(s, z), m.poly(_ASIN, z))
    return size, large, m.select(large, high, size), m.select(large, m.add(tail, lost), tail)


def asin(m: Floats, x: V) -> V:
    """Return the inverse sine."""
    _, large, high, low = _asin_parts(m, x)
    far = m.sub(m.sub(_HALF_PI[0], m.add(high, high)), m.sub(m.add(low, low), _HALF_PI[1]))
    return m.copysign(m.select(large, far, m.add(high, low)), x)


def acos(m: Floats, x: V) -> V:
    """Return the inverse cosine."""
    _, large, high, low = _asin_parts(m, x)
    y = m.add(high, low)
    near = m.sub(_HALF_PI[0], m.sub(m.copysign(y, x), _HALF_PI[1]))
    twice = m.add(y, y)
    behind = m.sub(2 * _HALF_PI[0], m.sub(twice, 2 * _HALF_PI[1]))
    return m.select(large, m.select(m.test(x, "<", 0), behind, twice), near)
