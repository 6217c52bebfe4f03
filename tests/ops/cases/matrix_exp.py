"""The exponential of matrices: the rows of the op table."""

from __future__ import annotations

import numpy as np

from onnxgrad.ops.matrix_exp import matrix_exp

from ..case import OpCase, rand


def series(a: np.ndarray) -> np.ndarray:
    """Return the exponential by its power series, of a small part, squared."""
    x, term, total = a / 256, np.eye(a.shape[-1]), np.eye(a.shape[-1])
    for k in range(1, 20):
        term = term @ x / k
        total = total + term
    for _ in range(8):
        total = total @ total
    return total


def skew(*shape: int) -> np.ndarray:
    a = rand(*shape)
    return a - a.swapaxes(-1, -2)


CASES = [
    OpCase(matrix_exp, (rand(3, 3),), series, tol=1e-11),
    OpCase(matrix_exp, (rand(2, 2, 2, low=-0.1, high=0.1),), series, tol=1e-11),
    OpCase(matrix_exp, (skew(4, 4) * 3,), series, tol=1e-11, name="matrix_exp-rotation"),
    OpCase(matrix_exp, (np.zeros((2, 2)),), series, tol=1e-11, name="matrix_exp-zero"),
]
