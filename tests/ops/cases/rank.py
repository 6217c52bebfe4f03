"""Which elements are largest: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.rank import argmax, argmin, hardmax, topk

from ..case import OpCase, rand

TIED = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, -1.0, 2.0, -1.0]])


def top(x: np.ndarray, k: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rank the rows of a matrix with Python's stable sort."""
    order = np.array([sorted(range(len(r)), key=lambda i, r=r: -r[i] if largest else r[i])[:k] for r in x.tolist()])
    return np.array([[r[i] for i in o] for r, o in zip(x, order, strict=True)], x.dtype), order


def best(f: Any, last: bool) -> Any:
    """Return where f of a row is first or last found."""

    def reference(x: np.ndarray) -> np.ndarray:
        return np.array([max(i for i, v in enumerate(r) if v == f(r)) if last else r.index(f(r)) for r in x.tolist()])

    return reference


CASES = [
    *(
        OpCase(
            op,
            (TIED,),
            best(f, last),
            {"axis": 1, "keepdims": False, "select_last": last},
            order=0,
            name=f"{op.name}-{last}",
        )
        for op, f in ((argmax, max), (argmin, min))
        for last in (False, True)
    ),
    OpCase(argmax, (rand(2, 3, 2),), lambda x: np.argmax(x, 1)[:, None], {"axis": -2, "keepdims": True}, order=0),
    OpCase(hardmax, (TIED,), lambda x: np.array([[0.0, 1, 0, 0], [1, 0, 0, 0]]), {"axis": 1}, order=0),
    OpCase(
        hardmax,
        (rand(2, 3, 2),),
        lambda x: (x == x.max(1, keepdims=True)).astype(float),
        {"axis": 1},
        order=0,
    ),
    *(
        OpCase(
            topk,
            (rand(3, 5),),
            lambda x, v=v: top(x, 3, v),
            {"k": 3, "axis": 1, "largest": v},
            name=f"topk-{v}",
        )
        for v in (False, True)
    ),
    OpCase(topk, (rand(5, 3),), lambda x: tuple(v.T for v in top(x.T, 2, True)), {"k": 2, "axis": 0}),
    OpCase(
        topk,
        (rand(2, 3),),
        lambda x: (np.zeros((2, 0)), np.zeros((2, 0))),
        {"k": 0, "axis": 1},
        order=1,
        name="topk-0",
    ),
    *(
        OpCase(
            topk,
            (TIED.astype(t),),
            lambda x, v=v: top(x, 4, v),
            {"k": 4, "axis": 1, "largest": v},
            order=0,
            name=f"topk-{t}-{v}",
        )
        for t in ("int8", "int64")
        for v in (False, True)
    ),
]
