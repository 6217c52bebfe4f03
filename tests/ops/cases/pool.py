"""Pooling: the rows of the op table."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from onnxgrad.ops.pool import (
    max_pool,
    max_pool_grad,
    max_pool_indices,
    max_unpool,
    pool_gather,
    pool_scatter,
    sum_pool,
    sum_pool_grad,
)
from onnxgrad.ops.window import Window

from ..case import OpCase, rand


def under(size: tuple[int, ...], kernel: tuple[int, ...], win: Window) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """Return for each output the positions that its window meets, row-major, inside the input or not."""
    found = {}
    for o in itertools.product(*map(range, win.out(size, kernel))):
        corner = [i * s - lo for i, s, (lo, _) in zip(o, win.strides, win.pads, strict=True)]
        found[o] = [
            tuple(c + k * d for c, k, d in zip(corner, tap, win.dilations, strict=True))
            for tap in itertools.product(*map(range, kernel))
        ]
    return found


def inside(at: tuple[int, ...], size: tuple[int, ...], pads: Any = None) -> bool:
    pads = pads or ((0, 0),) * len(size)
    return all(-lo <= i < n + hi for i, n, (lo, hi) in zip(at, size, pads, strict=True))


def chosen(x: np.ndarray, kernel: tuple[int, ...], win: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return maxima and their flat indices, one window at a time."""
    size = x.shape[2:]
    windows = under(size, kernel, win)
    y = np.zeros((*x.shape[:2], *win.out(size, kernel)))
    index = np.zeros(y.shape, np.int64)
    for n, c in itertools.product(*map(range, x.shape[:2])):
        for o, positions in windows.items():
            best = max((p for p in positions if inside(p, size)), key=lambda p: x[(n, c, *p)])
            y[(n, c, *o)] = x[(n, c, *best)]
            index[(n, c, *o)] = np.ravel_multi_index((n, c, *best), x.shape)
    return y, index


def means(x: np.ndarray, kernel: tuple[int, ...], win: Window, counted: Any) -> np.ndarray:
    size = x.shape[2:]
    y = np.zeros((*x.shape[:2], *win.out(size, kernel)))
    for o, positions in under(size, kernel, win).items():
        total = sum(x[(slice(None), slice(None), *p)] for p in positions if inside(p, size))
        count = 1 if counted is None else sum(inside(p, size, counted) for p in positions)
        y[(slice(None), slice(None), *o)] = total / count
    return y


def row(shape: tuple[int, ...], kernel: tuple[int, ...], win: Window, counted: Any = None) -> list[OpCase]:
    """Return the ops of both families on one window."""
    x = np.random.default_rng(len(shape)).permutation(math.prod(shape)).reshape(shape) / 4.0  # no ties
    y, index = chosen(x, kernel, win)
    g = rand(*y.shape, seed=1)

    def scattered(g: np.ndarray, index: np.ndarray) -> np.ndarray:
        flat = np.zeros(x.size)
        for i, v in zip(index.ravel(), g.ravel(), strict=True):
            flat[i] += v
        return flat.reshape(shape)

    def adjoint(g: np.ndarray) -> np.ndarray:
        basis = np.eye(x.size).reshape(x.size, *shape)
        return np.array([(means(e, kernel, win, counted) * g).sum() for e in basis]).reshape(shape)

    window = {"kernel": kernel, "win": win}
    return [
        OpCase(max_pool, (x,), lambda x: chosen(x, kernel, win)[0], window),
        OpCase(max_pool_indices, (x,), lambda x: chosen(x, kernel, win)[1], window, order=0),
        OpCase(max_pool_grad, (g, x), lambda g, x: scattered(g, chosen(x, kernel, win)[1]), window),
        OpCase(pool_scatter, (g, index), scattered, {"size": shape[2:]}, symbolic=False),
        OpCase(pool_gather, (x, index), lambda x, i: x.ravel()[i]),
        OpCase(sum_pool, (x,), lambda x: means(x, kernel, win, counted), {**window, "counted": counted}),
        OpCase(sum_pool_grad, (g,), adjoint, {**window, "counted": counted, "size": shape[2:]}, symbolic=False),
    ]


def column_major(x: np.ndarray) -> np.ndarray:
    """Return the indices of the only maximum of each plane, counted down the columns."""
    return np.array([np.argmax(plane.T.ravel()) + i * plane.size for i, plane in enumerate(x[0])]).reshape(1, -1, 1, 1)


def placed(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    y = np.zeros(16)
    for at, v in zip(index.ravel(), x.ravel(), strict=True):
        y[at] = v
    return y.reshape(1, 1, 4, 4)


square = Window((2, 2), ((1, 1), (1, 1)), (1, 1))
apart = np.array([[[[0, 3], [6, 12]]]])

CASES = [
    *row((2, 2, 6), (3,), Window((2,), ((0, 0),), (1,))),
    *row((1, 2, 5, 4), (3, 3), square, ((0, 0), (0, 0))),
    *row((1, 2, 4, 5), (3, 2), Window((1, 2), ((1, 1), (0, 1)), (1, 2)), ((1, 1), (0, 1))),
    *row(
        (1, 1, 5, 5),
        (2, 2),
        Window((2, 2), ((0, 0), (0, 0)), (1, 1)).ceiled((5, 5), (2, 2)),
        ((0, 0), (0, 0)),
    ),
    *row((1, 1, 3, 3, 4), (2, 2, 2), Window((1, 2, 2), ((0, 1), (0, 0), (1, 0)), (1, 1, 1)), ((0, 0),) * 3),
    OpCase(
        max_pool_indices,
        (rand(1, 3, 2, 3),),
        column_major,
        name="max_pool_indices-column_major",
        order=0,
        attrs={"kernel": (2, 3), "win": Window((1, 1), ((0, 0), (0, 0)), (1, 1)), "column_major": True},
    ),
    OpCase(
        max_unpool,
        (rand(1, 1, 2, 2), apart),
        placed,
        {"size": (4, 4)},
        symbolic=False,
    ),
]
