"""The exponential of matrices, by scaling, a rational approximation, and squaring."""

from __future__ import annotations

import math

import numpy as np

from ...matrix_exp import matrix_exp
from ...types import Array
from .host import on_host

PADE = {
    7: (17297280, 8648640, 1995840, 277200, 25200, 1512, 56, 1),
    13: (
        64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000, 10559470521600,
        670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1,
    ),
}  # fmt: skip
"""Coefficients of the numerators by degree."""

WITHIN = {7: 3.925724783138660, 13: 5.371920351148152}
"""Up to which 1-norm they are exact to rounding: degree 7 in float32, degree 13 in float64."""


@matrix_exp.kernel("array")
@on_host
def _matrix_exp(a: Array) -> Array:
    if not a.size:
        return a.copy()
    degree = 7 if a.dtype == np.float32 else 13
    norm = float(abs(a).sum(-2).max())
    halvings = max(0, math.ceil(math.log2(norm / WITHIN[degree]))) if math.isfinite(norm) and norm else 0
    x = a * a.dtype.type(0.5**halvings)
    unit = np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape)
    square = x @ x
    power, odd, even = unit, np.zeros_like(x), np.zeros_like(x)
    for i, c in enumerate(PADE[degree]):
        if i % 2:
            odd = odd + c * power
            power = power @ square
        else:
            even = even + c * power
    odd = x @ odd
    y = np.linalg.solve(even - odd, even + odd)
    for _ in range(halvings):
        y = y @ y
    return y
