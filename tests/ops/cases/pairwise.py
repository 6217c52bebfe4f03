"""Pairwise coupling: the rows of the op table."""

from __future__ import annotations

import numpy as np

from onnxgrad.ops.pairwise import pairwise_coupling

from ..case import OpCase, rand


def libsvm(p: np.ndarray, k: int) -> np.ndarray:
    """Couple row by row, as libsvm's own `multiclass_probability` is written."""
    out = []
    for probabilities in p:
        r = np.zeros((k, k))
        each = iter(probabilities)
        for i in range(k):
            for j in range(i + 1, k):
                r[i, j] = next(each)
                r[j, i] = 1 - r[i, j]
        q = np.zeros((k, k))
        for t in range(k):
            for j in range(k):
                if j != t:
                    q[t, t] += r[j, t] ** 2
                    q[t, j] = -r[j, t] * r[t, j]
        at = np.full(k, 1 / k)
        for _ in range(max(100, k)):
            qp = q @ at
            total = at @ qp
            if np.abs(qp - total).max() < 0.005 / k:
                break
            for t in range(k):
                step = (total - qp[t]) / q[t, t]
                at[t] += step
                total = (total + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
                qp = (qp + step * q[t]) / (1 + step)
                at = at / (1 + step)
        out.append(at)
    return np.array(out)


CASES = [
    OpCase(pairwise_coupling, (rand(5, n, low=0.05, high=0.95),), lambda p, k=k: libsvm(p, k), {"classes": k}, order=0)
    for k, n in ((2, 1), (3, 3), (5, 10))
]
