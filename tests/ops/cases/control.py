"""Control flow: the rows of the op table, against Python that says the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops import pointwise as pw
from onnxgrad.ops.control import call, if_, loop, scan, scan_batch

from ..bodies import body
from ..case import OpCase, rand

F = "float64"
X, Y, Z = rand(2, 3), rand(2, 3, seed=1), rand(2, 3, seed=2)

double = body(lambda x, y: (pw.mul(x, y), pw.add(x, 1.0)), (F, 2, 3), (F, 2, 3))
wave = body(lambda z: (pw.sin(z), pw.mul(z, z)), (F, 2, 3))
branches: dict[str, Any] = {"then": double, "orelse": wave, "split": 2}

square = body(lambda i, c, x, w: (c, pw.sin(pw.mul(x, w)), pw.mul(x, x)), ("int64",), ("bool",), (F, 2, 3), (F, 2, 3))
until = body(lambda i, c, x: (pw.less(x, 9.0), pw.mul(x, 2.0)), ("int64",), ("bool",), (F,))


def rounds(n: int) -> Any:
    def reference(m: Any, c: Any, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
        made = []
        for _ in range(n):
            made.append(x * x)
            x = np.sin(x * w)
        return x, np.stack(made) if made else np.empty((0, *x.shape))

    return reference


decay = body(lambda s, x, w: (pw.add(pw.mul(s, w), x), pw.mul(s, x)), (F, 3), (F, 3), (F, 3))


def scanned(s: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    """Over axis 1 of x from its end; the elements stacked along axis 1, in reverse."""
    made = []
    for t in reversed(range(x.shape[1])):
        made.append(s * x[:, t])
        s = s * w + x[:, t]
    return s, np.stack(made[::-1], axis=1)


def batched(lengths: Any, s: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    states, outs = [], np.zeros(x.shape)
    for n, state in enumerate(s):
        for t in range(x.shape[1] if lengths is None else lengths[n]):
            outs[n, t] = state * x[n, t]
            state = state * w + x[n, t]
        states.append(state)
    return np.stack(states), outs


one: dict[str, Any] = {"body": decay, "states": 1, "inputs": 1, "in_reverse": (False,)}

CASES = [
    OpCase(if_, (np.array(True), X, Y, Z), lambda p, x, y, z: (x * y, x + 1), branches),
    OpCase(if_, (np.array([False]), X, Y, Z), lambda p, x, y, z: (np.sin(z), z * z), branches),
    OpCase(loop, (np.array(3), np.array(True), X, Y), rounds(3), {"body": square, "carried": 1}),
    OpCase(loop, (np.array([2]), None, X, Y), rounds(2), {"body": square, "carried": 1}),
    OpCase(loop, (np.array(0), None, X, Y), rounds(0), {"body": square, "carried": 1}),
    OpCase(loop, (np.array(3), np.array(False), X, Y), rounds(0), {"body": square, "carried": 1}),
    OpCase(
        loop,
        (None, np.array(True), np.array(1.0)),
        lambda m, c, x: (np.array(32.0),),
        {"body": until, "carried": 1},
    ),
    OpCase(
        scan,
        (rand(3), rand(3, 4), rand(3, seed=1)),
        scanned,
        {
            "body": decay,
            "states": 1,
            "inputs": 1,
            "in_axes": (1,),
            "in_reverse": (True,),
            "out_axes": (-1,),
            "out_reverse": (True,),
        },
    ),
    OpCase(scan_batch, (None, rand(2, 3), rand(2, 4, 3), rand(3)), batched, one),
    OpCase(scan_batch, (np.array([4, 2]), rand(2, 3), rand(2, 4, 3), rand(3)), batched, one),
    OpCase(call, (Z,), lambda z: (np.sin(z), z * z), {"body": wave}),
]
