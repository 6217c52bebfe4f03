"""Reductions: the rows of the op table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxgrad.ops.reduce import divided, l2_norm, logsumexp, max_, mean, min_, prod, sum_

from ..case import OpCase, rand


def folded(f: Callable[[list[float]], float], axes: tuple[int, ...] | None, keepdims: bool) -> Callable[[Any], Any]:
    """Return the reduction by its definition: f of the list of elements that share the other indices."""

    def reference(x: np.ndarray) -> np.ndarray:
        over = tuple(range(x.ndim)) if axes is None else tuple(a % x.ndim for a in axes)
        shape = tuple(1 if i in over else n for i, n in enumerate(x.shape))
        out = np.zeros(shape, x.dtype)
        for at in itertools.product(*map(range, shape)):
            part = x[tuple(slice(None) if i in over else k for i, k in enumerate(at))]
            out[at] = f([v.item() for v in np.nditer(part, flags=["zerosize_ok"])])
        return out if keepdims else out.reshape([n for i, n in enumerate(x.shape) if i not in over])

    return reference


FLOATS: list[tuple[Any, Callable[[list[float]], float]]] = [
    (sum_, math.fsum),
    (mean, lambda v: math.fsum(v) / len(v)),
    (max_, max),
    (min_, min),
    (prod, math.prod),
    (logsumexp, lambda v: math.log(math.fsum(math.exp(e) for e in v))),
    (l2_norm, lambda v: math.hypot(*v)),
]
WHERE: list[tuple[tuple[int, ...] | None, bool]] = [
    (None, False),
    ((1,), False),
    ((0, 2), True),
    ((-1,), True),
    ((), False),
]

ZEROS = np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 0.0, 5.0, 2.0], [1.5, 2.0, 0.5, -3.0]])
WHOLE = np.array([[3, -7, 2], [5, 0, -4]], np.int64)


def _integer(op: Any, f: Callable[[list[Any]], Any]) -> list[OpCase]:
    attrs = {"axes": (1,), "keepdims": False}
    return [
        OpCase(op, (WHOLE,), folded(f, (1,), False), attrs, order=0, name=f"{op.name}-int64"),
        OpCase(
            op,
            (WHOLE[0],),
            folded(f, (0,), False),
            {"axes": (0,), "keepdims": False},
            order=0,
            name=f"{op.name}-int64-1d",
        ),
    ]


CASES = [
    *(
        OpCase(
            op,
            (rand(2, 3, 4),),
            folded(f, axes, keep),
            {"axes": axes, "keepdims": keep},
            name=f"{op.name}-{axes}-{keep}",
        )
        for op, f in FLOATS
        for axes, keep in WHERE
    ),
    OpCase(prod, (ZEROS,), folded(math.prod, (1,), False), {"axes": (1,), "keepdims": False}, name="prod-zeros"),
    OpCase(prod, (ZEROS,), folded(math.prod, None, True), {"axes": None, "keepdims": True}, name="prod-zeros-all"),
    OpCase(
        sum_,
        (rand(2, 0, 3),),
        folded(math.fsum, (1,), False),
        {"axes": (1,), "keepdims": False},
        name="sum-empty",
    ),
    OpCase(
        logsumexp,
        (rand(2, 3) * 400,),
        lambda x: np.array([max(r) + math.log(math.fsum(math.exp(e - max(r)) for e in r)) for r in x]),
        {"axes": (1,), "keepdims": False},
        name="logsumexp-large",
    ),
    *_integer(sum_, sum),
    *_integer(max_, max),
    *_integer(min_, min),
    *_integer(prod, math.prod),
    *_integer(mean, lambda v: int(sum(v) / len(v))),
    OpCase(divided, (rand(2, 3),), lambda x: x / 5, {"count": 5}),
]
