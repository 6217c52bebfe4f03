"""Decompositions of matrices: the rows of the op table. What has several values is checked by what it multiplies to."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.linalg import cholesky, eigh, pinv, qr, slogdet, solve, svd

from ..case import OpCase, rand
from .matmul import adjugate, cofactors, regular

A = regular(3, 3)
STACK = np.stack([regular(3, 3), rand(3, 3, seed=7) + 4 * np.eye(3)])
SYMMETRIC = A @ A.T


def gauss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve by the inverse of Cramer's rule."""
    return adjugate(a) @ b


def banachiewicz(a: np.ndarray) -> np.ndarray:
    """Return Cholesky's factor one element at a time."""
    low = np.zeros_like(a)
    for i in range(len(a)):
        for j in range(i + 1):
            rest = a[i, j] - low[i, :j] @ low[j, :j]
            low[i, j] = np.sqrt(rest) if i == j else rest / low[j, j]
    return low


def householder(a: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return LAPACK's factors by Gram and Schmidt, with its signs."""
    q = np.zeros_like(a)
    for j in range(a.shape[1]):
        v = a[:, j] - q[:, :j] @ (q[:, :j].T @ a[:, j])
        q[:, j] = v / np.sqrt(v @ v)
    signs = np.sign(np.diag(np.linalg.qr(a)[1]))
    return q * signs, (q * signs).T @ a


def normal_equations(a: np.ndarray) -> np.ndarray:
    return adjugate(a.T @ a) @ a.T if a.shape[0] >= a.shape[1] else a.T @ adjugate(a @ a.T)


def numpys(name: str, **how: Any) -> Any:
    return lambda a: tuple(getattr(np.linalg, name)(a, **how))


CASES = [
    OpCase(solve, (A, rand(3, 2)), gauss, symbolic=False),
    OpCase(solve, (STACK, rand(3, 2)), lambda a, b: np.stack([gauss(m, b) for m in a]), symbolic=False),
    OpCase(cholesky, (SYMMETRIC,), banachiewicz, symbolic=False, order=None),
    OpCase(eigh, (SYMMETRIC,), numpys("eigh"), symbolic=False, order=None),
    OpCase(
        eigh, (SYMMETRIC,), numpys("eigh", UPLO="U"), {"upper": True}, symbolic=False, order=None, name="eigh-upper"
    ),
    *(
        OpCase(svd, (a,), numpys("svd", full_matrices=False), symbolic=False, order=None)
        for a in (A, rand(4, 2), rand(2, 3))
    ),
    OpCase(qr, (A,), householder, symbolic=False, tol=1e-10),
    OpCase(qr, (rand(4, 2),), householder, symbolic=False, tol=1e-10),
    OpCase(slogdet, (A,), lambda a: (np.sign(cofactors(a)), np.log(abs(cofactors(a)))), symbolic=False),
    *(OpCase(pinv, (a,), normal_equations, symbolic=False, grad_tol=1e-4) for a in (A, rand(4, 2), rand(2, 3))),
]
