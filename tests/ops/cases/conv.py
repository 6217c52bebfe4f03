"""Convolution: the rows of the op table."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from onnxgrad.ops.conv import conv, conv_input_grad, conv_weight_grad
from onnxgrad.ops.window import Window

from ..case import OpCase, rand


def loops(x: np.ndarray, w: np.ndarray, win: Window) -> np.ndarray:
    """Correlate by the definition, one output at a time."""
    x = np.pad(x, ((0, 0), (0, 0), *((max(lo, 0), max(hi, 0)) for lo, hi in win.pads)))
    x = x[
        (
            slice(None),
            slice(None),
            *(slice(max(-lo, 0), n - max(-hi, 0)) for (lo, hi), n in zip(win.pads, x.shape[2:], strict=True)),
        )
    ]
    n, f = x.shape[0], w.shape[0]
    per = f // win.group
    out = Window(win.strides, ((0, 0),) * (x.ndim - 2), win.dilations).out(x.shape[2:], w.shape[2:])
    y = np.zeros((n, f, *out))
    for o in itertools.product(*map(range, out)):
        for k in itertools.product(*map(range, w.shape[2:])):
            at = tuple(i * s + j * d for i, s, j, d in zip(o, win.strides, k, win.dilations, strict=True))
            for c in range(f):
                first = c // per * w.shape[1]
                y[(slice(None), c, *o)] += (
                    x[(slice(None), slice(first, first + w.shape[1]), *at)] @ w[(c, slice(None), *k)]
                )
    return y


def row(
    x: tuple[int, ...], w: tuple[int, ...], strides: Any, pads: Any, dilations: Any, group: int = 1
) -> list[OpCase]:
    """Return the three ops of the family on one window, the adjoints by their defining inner products."""
    win = Window(strides, pads, dilations, group)
    a, b = rand(*x), rand(*w, seed=1)
    y = loops(a, b, win)
    g = rand(*y.shape, seed=2)

    def input_grad(g: np.ndarray, b: np.ndarray) -> np.ndarray:
        basis = np.eye(a.size).reshape(a.size, *a.shape)
        return np.array([(loops(e, b, win) * g).sum() for e in basis]).reshape(a.shape)

    def weight_grad(g: np.ndarray, a: np.ndarray) -> np.ndarray:
        basis = np.eye(b.size).reshape(b.size, *b.shape)
        return np.array([(loops(a, e, win) * g).sum() for e in basis]).reshape(b.shape)

    return [
        OpCase(conv, (a, b), lambda a, b: loops(a, b, win), {"win": win}),
        OpCase(conv_input_grad, (g, b), input_grad, {"win": win, "size": a.shape[2:]}, symbolic=False),
        OpCase(conv_weight_grad, (g, a), weight_grad, {"win": win, "kernel": b.shape[2:]}, symbolic=False),
    ]


CASES = [
    *row((2, 2, 5), (3, 2, 3), (1,), ((1, 1),), (1,)),
    *row((1, 2, 4, 5), (4, 2, 3, 2), (2, 1), ((1, 1), (0, 2)), (1, 2)),
    *row((2, 4, 4, 3), (6, 2, 3, 2), (1, 1), ((1, 0), (0, 1)), (1, 1), 2),
    *row((1, 3, 5, 4), (6, 1, 3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 3),
    *row((2, 3, 3, 3), (4, 3, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    *row((1, 3, 4, 5), (6, 1, 2, 3), (1, 2), ((1, 0), (2, 1)), (2, 1), 3),
    *row((1, 2, 5, 6), (2, 2, 2, 2), (2, 2), ((-1, 0), (0, -1)), (1, 1)),
    *row((2, 2, 5, 4), (3, 2, 1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    *row((1, 2, 4, 4), (2, 2, 1, 1), (1, 1), ((1, 0), (0, 1)), (1, 1)),
    *row((1, 1, 3, 3, 4), (2, 1, 2, 2, 2), (1, 2, 1), ((0, 1), (0, 0), (1, 0)), (1, 1, 2)),
]
