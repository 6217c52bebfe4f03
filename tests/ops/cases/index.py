"""Gathers and scatters: the rows of the op table."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgrad.ops.index import (
    copy_slices,
    gather,
    gather_elements,
    gather_grad,
    gather_nd,
    nonzero,
    one_hot,
    reverse_sequence,
    scatter_elements,
    scatter_nd,
    tensor_scatter,
    tensor_window,
    unique,
)

from ..case import OpCase, rand
from .layout import adjoint, by_index

COMBINE: dict[str, Any] = {
    "none": lambda a, b: b,
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": max,
    "min": min,
}


def gathers(shape: tuple[int, ...], indices: Any, axis: int) -> list[OpCase]:
    at = np.array(indices)

    def take(x: np.ndarray, at: np.ndarray = at) -> np.ndarray:
        a = axis % x.ndim
        out = np.zeros((*x.shape[:a], *at.shape, *x.shape[a + 1 :]))
        for before in np.ndindex(*x.shape[:a]):
            for i in np.ndindex(*at.shape):
                out[(*before, *i)] = x[(*before, at[i])]
        return out

    x = rand(*shape)
    g = rand(*take(x).shape, seed=1)
    back = adjoint(take, shape)
    return [
        OpCase(gather, (x, at), take, {"axis": axis}),
        OpCase(gather_grad, (g, at), lambda g, at: back(g), {"axis": axis, "size": shape[axis]}),
    ]


def along(x: np.ndarray, place: tuple[int, ...], index: int, axis: int) -> tuple[int, ...]:
    at = list(place)
    at[axis] = index % x.shape[axis]
    return tuple(at)


def elements(axis: int) -> Any:
    def f(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        out = np.zeros(indices.shape)
        for place in np.ndindex(*indices.shape):
            out[place] = x[along(x, place, indices[place], axis)]
        return out

    return f


def written(x: np.ndarray, part: np.ndarray, positions: np.ndarray) -> np.ndarray:
    flat = list(x.flatten())
    for place in np.ndindex(*positions.shape):
        flat[positions[place]] = part[place]
    return np.array(flat).reshape(x.shape)


def scattered(axis: int, reduction: str) -> Any:
    def f(x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        y = x.copy()
        for place in np.ndindex(*indices.shape):
            at = along(x, place, indices[place], axis)
            y[at] = COMBINE[reduction](y[at], updates[place])
        return y

    return f


def tuples(batch: int) -> Any:
    def f(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        out = np.zeros((*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]))
        for place in np.ndindex(*indices.shape[:-1]):
            out[place] = x[(*place[:batch], *indices[place])]
        return out

    return f


def scattered_tuples(reduction: str, batch: int = 0) -> Any:
    def f(x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        y = x.copy()
        for place in np.ndindex(*updates.shape):
            head = place[: indices.ndim - 1]
            at = (*head[:batch], *indices[head], *place[indices.ndim - 1 :])
            y[at] = COMBINE[reduction](y[at], updates[place])
        return y

    return f


def window(axis: int, size: int, circular: bool) -> Any:
    def f(x: np.ndarray, at: Any = None) -> np.ndarray:
        out = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]))
        for place in np.ndindex(*out.shape):
            i = place[axis] + (0 if at is None else int(at[place[0]]))
            out[place] = x[(*place[:axis], i % x.shape[axis] if circular else i, *place[axis + 1 :])]
        return out

    return f


def cached(axis: int, circular: bool) -> Any:
    def f(x: np.ndarray, updates: np.ndarray, at: Any = None) -> np.ndarray:
        y = x.copy()
        for place in np.ndindex(*updates.shape):
            i = place[axis] + (0 if at is None else int(at[place[0]]))
            y[(*place[:axis], i % x.shape[axis] if circular else i, *place[axis + 1 :])] = updates[place]
        return y

    return f


def hot(depth: int, last: bool) -> Any:
    def f(indices: np.ndarray) -> np.ndarray:
        rows = [[float(v in (i, i - depth)) for i in range(depth)] for v in indices.ravel()]
        y = np.array(rows).reshape(*indices.shape, depth)
        return y if last else np.moveaxis(y, -1, 0)

    return f


def distinct(values: Any, order: Any) -> tuple[np.ndarray, ...]:
    return (
        np.array(order),
        np.array([values.index(v) for v in order]),
        np.array([order.index(v) for v in values]),
        np.array([values.count(v) for v in order]),
    )


def reversed_by(lengths: np.ndarray, time: int, batch: int) -> Any:
    def f(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        def source(place: tuple[int, ...]) -> tuple[int, ...]:
            at, n = list(place), int(lengths[place[batch]])
            at[time] = n - 1 - at[time] if at[time] < n else at[time]
            return tuple(at)

        return by_index(x, x.shape, source)

    return f


X = rand(3, 4)
LENGTHS = np.array([2, 1, 3])
AT = np.array([[0, 2, -1], [1, 0, 0]])
ONCE = np.array([[0, 2, 1, 0], [1, 0, -1, 2]])
TWICE = np.array([[0, 2, 1, 0], [0, 2, 1, -3]])
PAIRS = np.array([[[0, 1]], [[2, -1]], [[0, 1]]])
REPEATS = [2, 1, 1, 3, 2]

CASES = [
    *gathers((5, 3), [[0, 4, 0], [2, -1, 4]], 0),
    *gathers((2, 4, 3), [3, 1, 1], 1),
    *gathers((4, 3), 2, 0),
    *gathers((4,), [1, 1, -4, 3], -1),
    *gathers((2, 3), [1, 0], -1),
    OpCase(gather_elements, (X, AT), elements(0), {"axis": 0}),
    OpCase(gather_elements, (X, AT), elements(1), {"axis": 1}),
    OpCase(gather_nd, (rand(3, 4, 2), PAIRS), tuples(0)),
    OpCase(gather_nd, (rand(3, 4, 2), np.array([[3], [0], [-1]])), tuples(1), {"batch_dims": 1}),
    OpCase(gather_nd, (X, np.zeros((2, 0), int)), lambda x, i: np.array([x, x]), name="gather_nd-everything"),
    *(
        OpCase(
            scatter_elements,
            (X, at, rand(2, 4, seed=3)),
            scattered(0, r),
            {"axis": 0, "reduction": r},
            name=f"scatter_elements-{r}",
        )
        for r, at in (("none", ONCE), ("add", TWICE), ("mul", TWICE), ("max", TWICE), ("min", TWICE))
    ),
    OpCase(scatter_elements, (X, AT[:1], rand(1, 3, seed=3)), scattered(1, "none"), {"axis": -1}),
    *(
        OpCase(
            scatter_nd,
            (rand(3, 4, 2), at, rand(3, 1, 2, seed=3)),
            scattered_tuples(r),
            {"reduction": r},
            name=f"scatter_nd-{r}",
        )
        for r, at in (
            ("none", PAIRS + np.array([[[0, 0]], [[0, 0]], [[1, 0]]])),
            ("add", PAIRS),
            ("mul", PAIRS),
            ("max", PAIRS),
            ("min", PAIRS),
        )
    ),
    OpCase(
        scatter_nd,
        (rand(3, 4, 2), np.array([[3], [0], [-1]]), rand(3, 2, seed=3)),
        scattered_tuples("add", 1),
        {"reduction": "add", "batch_dims": 1},
        name="scatter_nd-batch",
    ),
    OpCase(copy_slices, (rand(3, 4), rand(2, 2, seed=1), np.array([[1, 2], [9, 10]])), written),
    OpCase(copy_slices, (rand(4), rand(seed=1), np.array(2)), written),
    OpCase(
        tensor_scatter,
        (rand(2, 5, 3), rand(2, 2, 3, seed=1), np.array([1, 3])),
        cached(1, False),
        {"axis": 1},
    ),
    OpCase(
        tensor_scatter,
        (rand(2, 5, 3), rand(2, 2, 3, seed=1), np.array([1, 4])),
        cached(1, True),
        {"axis": -2, "mode": "circular"},
        name="tensor_scatter-circular",
    ),
    OpCase(
        tensor_scatter,
        (rand(2, 3, 4), rand(2, 3, 2, seed=1)),
        cached(2, False),
        {"axis": 2},
        name="tensor_scatter-start",
    ),
    OpCase(tensor_window, (rand(2, 5, 3), np.array([1, 3])), window(1, 2, False), {"axis": 1, "size": 2}),
    OpCase(
        tensor_window,
        (rand(2, 5, 3), np.array([1, 4])),
        window(1, 2, True),
        {"axis": 1, "size": 2, "mode": "circular"},
        name="tensor_window-circular",
    ),
    OpCase(nonzero, (np.array([[1.0, 0.0], [2.0, -1.0]]),), lambda x: np.array([[0, 1, 1], [0, 0, 1]]), order=0),
    OpCase(one_hot, (np.array([[1, -1], [5, 0]]),), hot(3, True), {"depth": 3, "dtype": "float64"}, order=0),
    OpCase(one_hot, (np.array([2, -4, 0]),), hot(3, False), {"depth": 3, "axis": 0, "dtype": "float64"}, order=0),
    OpCase(unique, (np.array(REPEATS),), lambda x: distinct(REPEATS, [1, 2, 3]), order=0),
    OpCase(
        unique,
        (np.array(REPEATS),),
        lambda x: distinct(REPEATS, [2, 1, 3]),
        {"ordered": False},
        order=0,
        name="unique-unordered",
    ),
    OpCase(
        unique,
        (np.array([0.5, -1.0, 2.0]),),
        lambda x: distinct(list(x), [-1.0, 0.5, 2.0]),
        name="unique-gradient",
    ),
    OpCase(
        unique,
        (np.array([[1.0, 2, 0.5], [0, 3, 0]]),),
        lambda x: (x[:, [2, 0, 1]], np.array([2, 0, 1]), np.array([1, 2, 0]), np.array([1, 1, 1])),
        {"axis": 1},
        name="unique-columns",
    ),
    OpCase(
        reverse_sequence,
        (rand(3, 3, 2), LENGTHS),
        reversed_by(LENGTHS, 0, 1),
        {"time_axis": 0, "batch_axis": 1},
    ),
    OpCase(
        reverse_sequence,
        (rand(3, 2, 4), LENGTHS),
        reversed_by(LENGTHS, 2, 0),
        {"time_axis": 2, "batch_axis": 0},
    ),
]
