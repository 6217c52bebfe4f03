"""Running sums, products and recurrences: the rows of the op table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxgrad.ops.cumulative import cumprod, cumsum, linear_scan, logcumsumexp, shift

from ..case import OpCase, rand

ZEROS = np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 0.0, 5.0, 2.0], [1.5, 2.0, 0.5, -3.0]])


def running(combine: Callable[[Any], Any], axis: int, exclusive: bool, reverse: bool) -> Callable[[Any], Any]:
    """Return the scan by its definition: each element is a reduction of those before it."""

    def reference(x: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(x, axis, 0)
        n = len(rows)
        out = np.zeros_like(rows)
        for t in range(n):
            part = rows[t + exclusive :] if reverse else rows[: t + (not exclusive)]
            out[t] = combine(part)
        return np.moveaxis(out, 0, axis)

    return reference


def recurrence(a: np.ndarray, b: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    """Step through y_t = a_t y_{t-1} + b_t."""
    p, q = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    y, out = np.zeros_like(q[0]), [None] * len(q)
    for t in reversed(range(len(q))) if reverse else range(len(q)):
        y = p[t] * y + q[t]
        out[t] = y
    return np.stack(out, axis)


FLAGS = [(False, False), (True, False), (False, True), (True, True)]

CASES = [
    *(
        OpCase(
            op,
            (x,),
            running(f, axis, exclusive, reverse),
            {"axis": axis, "exclusive": exclusive, "reverse": reverse},
            name=f"{op.name}-{axis}-{exclusive}-{reverse}-{x.ndim}",
        )
        for op, f in ((cumsum, lambda v: v.sum(0)), (cumprod, lambda v: v.prod(0)))
        for exclusive, reverse in FLAGS
        for x, axis in ((rand(2, 3, 2), 1), (ZEROS, -1))
    ),
    OpCase(cumsum, (np.array([1, 2, 3], np.int32),), lambda x: np.array([1, 3, 6]), {"axis": 0}, order=0),
    *(
        OpCase(
            linear_scan,
            (rand(2, 4), rand(2, 4, seed=1)),
            lambda a, b, r=r: recurrence(a, b, 1, r),
            {"axis": 1, "reverse": r},
        )
        for r in (False, True)
    ),
    OpCase(logcumsumexp, (rand(2, 4, 2),), lambda x: np.log(np.cumsum(np.exp(x), 1)), {"axis": 1}),
    OpCase(logcumsumexp, (np.array([-800.0, 1.0, -3.0, 700.0]),), lambda x: np.logaddexp.accumulate(x), {"axis": 0}),
    OpCase(shift, (rand(2, 4),), lambda x: np.hstack([np.zeros((2, 1)), x[:, :3]]), {"axis": 1, "by": 1}),
    OpCase(shift, (rand(3, 2),), lambda x: np.vstack([x[2:], np.zeros((2, 2))]), {"axis": 0, "by": -2}),
    OpCase(shift, (rand(3, 2),), lambda x: np.zeros((3, 2)), {"axis": 0, "by": 5}),
]
