"""The gamma function's family and the inverses of the error function, in float64.

Source: the Euler-Maclaurin series of the Hurwitz zeta function, and the reflection formulas (Abramowitz & Stegun 6.3.7,
6.4.7); the start of `erfinv` is Giles 2010, which two steps of Newton's method make exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...op import namespace
from ...places import to_numpy
from ...types import Array
from ._special import erf

# B_2k / (2k)! for k = 1, 2, ...
_BERNOULLI = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600)
_FAR = 12.0
"""From here on the series has its full accuracy."""

_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
         0.246640727, 1.50140941)  # fmt: skip
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
         1.00167406, 2.83297682)  # fmt: skip


def _each(f: Callable[[float], float]) -> Callable[[Array], Array]:
    many = np.frompyfunc(f, 1, 1)
    return lambda x: np.asarray(many(np.asarray(x, np.float64)), np.float64)


def _log_gamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.lgamma(x)


_lgamma, _erfc = _each(_log_gamma), _each(math.erfc)


def _device(name: str) -> Any:
    import cupyx.scipy.special as special

    return getattr(special, name)


def _as(x: Any, y: Array) -> Array:
    dtype = getattr(x, "dtype", None)
    return y if dtype is None or dtype.kind != "f" else y.astype(dtype, copy=False)


def lgamma(x: Array) -> Array:
    """Return the logarithm of the absolute value of the gamma function."""
    return _as(x, _lgamma(x) if namespace(x) is np else _device("gammaln")(x))


def erfc(x: Array) -> Array:
    """Return 1 - erf(x)."""
    return _as(x, _erfc(x) if namespace(x) is np else _device("erfc")(x))


def erfinv(x: Array) -> Array:
    """Return the inverse of the error function: infinite at -1 and 1, NaN outside."""
    if namespace(x) is not np:
        return _device("erfinv")(x)
    t = np.asarray(x, np.float64)
    size = np.abs(t)
    inside = np.minimum(size, 1 - 2.0**-53)
    w = -np.log((1 - inside) * (1 + inside))
    y = np.where(w < 5, np.polyval(_NEAR, w - 2.5), np.polyval(_TAIL, np.sqrt(np.maximum(w, 5)) - 3)) * inside
    for _ in range(3):
        over = np.where(inside < 0.5, erf(y) - inside, (1 - inside) - _erfc(y))
        y = y - over / (1.1283791670955126 * np.exp(-y * y))
    y = np.where(size == 1, np.inf, np.where(size <= 1, y, np.nan))
    return _as(x, np.copysign(y, t))


def polygamma(n: Any, x: Array) -> Array:
    """Return the n-th derivative of the digamma function."""
    orders = np.unique(to_numpy(n)).astype(int).tolist()
    if len(orders) != 1:
        y = x * 0.0 + n * 0.0
        for order in orders:
            y = namespace(x).where(n == order, polygamma(order, x), y)
        return y
    (order,) = orders
    if namespace(x) is not np:
        return _device("polygamma")(order, x) if order else _device("digamma")(x)
    t = np.broadcast_to(np.asarray(x, np.float64), np.broadcast_shapes(np.shape(x), np.shape(n)))
    with np.errstate(all="ignore"):
        y = _digamma(t) if order == 0 else (-1) ** (order + 1) * math.factorial(order) * _zeta(order, t)
    return _as(x, y)


def _digamma(x: Array) -> Array:
    left = x <= 0
    at = np.where(left, 1 - x, x)
    total = np.zeros_like(at)
    while (near := at < _FAR).any():
        total = np.where(near, total - 1 / at, total)
        at = np.where(near, at + 1, at)
    square = 1 / (at * at)
    series = sum(b * math.factorial(2 * k - 1) * square**k for k, b in enumerate(_BERNOULLI, 1))
    total = total + np.log(at) - 0.5 / at - series
    # Turned round at 1/2: sin and cos of the fraction, which stays exact where x is large.
    turned = np.pi / np.tan(np.pi * (x - np.floor(x)))
    total = np.where(left, total - turned, total)
    whole = np.where(x == 0, np.copysign(np.inf, -x), np.nan)
    return np.where(left & (x == np.floor(x)), whole, total)


def _zeta(n: int, q: Array) -> Array:
    """Return the Hurwitz zeta function at n + 1 and q."""
    s = n + 1
    if n == 1:
        return _trigamma(q)
    return np.where((q <= 0) & (q == np.floor(q)), np.inf, _zeta_series(s, q))


def _trigamma(q: Array) -> Array:
    left = q <= 0
    y = _zeta_series(2, np.where(left, 1 - q, q))
    fraction = np.sin(np.pi * (q - np.floor(q)))
    y = np.where(left, (np.pi / fraction) ** 2 - y, y)
    return np.where(left & (q == np.floor(q)), np.inf, y)


def _zeta_series(s: int, q: Array) -> Array:
    at, total = q, np.zeros_like(q)
    while (near := at < _FAR).any():
        total = np.where(near, total + at ** float(-s), total)
        at = np.where(near, at + 1, at)
    total = total + at ** (1.0 - s) / (s - 1) + 0.5 * at ** float(-s)
    for k, b in enumerate(_BERNOULLI, 1):
        rising = math.prod(range(s, s + 2 * k - 1))
        total = total + b * rising * at ** float(1 - s - 2 * k)
    return total
