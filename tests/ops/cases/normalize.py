"""Normalisation: the rows of the op table; the references go element by element."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from onnxgrad.ops import normalize as n

from ..case import OpCase, rand

EPS = 0.01


def rows(x: np.ndarray, axes: tuple[int, ...], f: Any) -> np.ndarray:
    """Apply f to each list of elements that share the indices outside of the axes."""
    out = np.zeros_like(x)
    others = [range(1) if i in axes else range(m) for i, m in enumerate(x.shape)]
    for at in itertools.product(*others):
        where = tuple(slice(None) if i in axes else k for i, k in enumerate(at))
        part = x[where]
        out[where] = np.array(f([float(v) for v in part.reshape(-1)])).reshape(part.shape)
    return out


def softmax(v: list[float]) -> list[float]:
    total = math.fsum(math.exp(e) for e in v)
    return [math.exp(e) / total for e in v]


def standard(v: list[float], center: bool = True) -> list[float]:
    m = math.fsum(v) / len(v) if center else 0.0
    s = math.sqrt(math.fsum((e - m) ** 2 for e in v) / len(v) + EPS)
    return [(e - m) / s for e in v]


def standard_grad(g: np.ndarray, x: np.ndarray, axes: tuple[int, ...], center: bool) -> np.ndarray:
    """Return the adjoint of the Jacobian, the latter by complex-step-free closed form, entry by entry."""
    out = np.zeros_like(x)
    others = [range(1) if i in axes else range(m) for i, m in enumerate(x.shape)]
    for at in itertools.product(*others):
        where = tuple(slice(None) if i in axes else k for i, k in enumerate(at))
        v, u = x[where].reshape(-1), g[where].reshape(-1)
        k = len(v)
        c = v - v.mean() if center else v
        s = math.sqrt((c * c).mean() + EPS)
        jacobian = (np.eye(k) - (1 / k if center else 0)) / s - np.outer(c, c) / (k * s**3)
        out[where] = (jacobian.T @ u).reshape(x[where].shape)
    return out


def by_channel(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    return v[(slice(None), *(None,) * (x.ndim - 2))]


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> np.ndarray:
    s, b, m, v = (by_channel(p, x) for p in (scale, bias, mean, var))
    return s * (x - m) / np.sqrt(v + EPS) + b


def batch_norm_train(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> tuple[np.ndarray, ...]:
    rolled = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    m, v = rolled.mean(1), rolled.var(1)
    return batch_norm(x, scale, bias, m, v), 0.8 * mean + 0.2 * m, 0.8 * var + 0.2 * v


def group_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    parts = [rows(p, tuple(range(1, x.ndim)), standard) for p in np.split(x, groups, axis=1)]
    return np.concatenate(parts, 1) * by_channel(scale, x) + by_channel(bias, x)


def lrn(x: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros_like(x)
    channels = x.shape[1]
    for c in range(channels):
        low, high = max(0, c - (size - 1) // 2), min(channels - 1, c + math.ceil((size - 1) / 2))
        total = sum(x[:, i] ** 2 for i in range(low, high + 1))
        out[:, c] = x[:, c] / (1.5 + 0.3 / size * total) ** 0.75
    return out


def mean_variance(v: list[float]) -> list[float]:
    m = math.fsum(v) / len(v)
    s = math.sqrt(math.fsum((e - m) ** 2 for e in v) / len(v))
    return [(e - m) / (s + 1e-9) for e in v]


def softmax_grad(g: np.ndarray, x: np.ndarray, axis: int, log: bool = False) -> np.ndarray:
    """Return the adjoint of the Jacobian of softmax, or its logarithm, at the result x, row by row."""
    out = np.zeros_like(x)
    for at in itertools.product(*[range(1) if i == axis else range(m) for i, m in enumerate(x.shape)]):
        where = tuple(slice(None) if i == axis else k for i, k in enumerate(at))
        v = x[where]
        jacobian = np.eye(len(v)) - np.exp(v)[None, :] if log else np.diag(v) - np.outer(v, v)
        out[where] = jacobian.T @ g[where]
    return out


def affine_grad(
    g: np.ndarray, x: np.ndarray, scale: np.ndarray, axes: tuple[int, ...], center: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of scale * standard + bias, of which the last two lie along other axes than those summed."""
    rest = tuple(i for i in range(x.ndim) if np.broadcast_to(scale, x.shape).strides[i] == 0)
    y = rows(x, axes, lambda v: standard(v, center))
    return standard_grad(g * scale, x, axes, center), (g * y).sum(rest), g.sum(rest)


X, C = rand(2, 3, 4), (rand(3, seed=1), rand(3, seed=2))
GX = rand(2, 3, 4, seed=5)
STATS = (rand(3, seed=3), rand(3, seed=4, low=0.5))
G = (rand(2, 4, 3), rand(4, seed=1), rand(4, seed=2))
LP = np.array([[1.0, -2.0, 2.0], [3.0, 4.0, -0.5]])

CASES = [
    *(
        OpCase(n.softmax, (X,), lambda x, a=a: rows(x, (a % 3,), softmax), {"axis": a}, name=f"softmax-{a}")
        for a in (1, -1)
    ),
    *(
        OpCase(
            n.log_softmax,
            (X,),
            lambda x, a=a: np.log(rows(x, (a % 3,), softmax)),
            {"axis": a},
            name=f"log_softmax-{a}",
        )
        for a in (1, -1)
    ),
    *(
        case
        for axes, center in (((1, 2), True), ((0,), True), ((2,), False))
        for case in (
            OpCase(
                n.standardize,
                (X,),
                lambda x, a=axes, c=center: rows(x, a, lambda v: standard(v, c)),
                {"axes": axes, "epsilon": EPS, "center": center},
                name=f"standardize-{axes}",
            ),
            OpCase(
                n.standardize_grad,
                (rand(2, 3, 4, seed=5), X),
                lambda g, x, a=axes, c=center: standard_grad(g, x, a, c),
                {"axes": axes, "epsilon": EPS, "center": center},
                name=f"standardize_grad-{axes}",
            ),
        )
    ),
    OpCase(
        n.layer_norm,
        (X, rand(4, seed=1), rand(4, seed=2)),
        lambda x, s, b: rows(x, (2,), standard) * s + b,
        {"axis": 2, "epsilon": EPS},
    ),
    OpCase(
        n.layer_norm,
        (X, rand(3, 4, seed=1), None),
        lambda x, s, b: rows(x, (1, 2), standard) * s,
        {"axis": 1, "epsilon": EPS},
        name="layer_norm-two-axes",
    ),
    OpCase(
        n.rms_norm,
        (X, rand(4, seed=1)),
        lambda x, s: rows(x, (2,), lambda v: standard(v, False)) * s,
        {"axis": 2, "epsilon": EPS},
    ),
    *(OpCase(n.softmax_grad, (GX, X), lambda g, y, a=a: softmax_grad(g, y, a), {"axis": a}) for a in (1, 2)),
    *(OpCase(n.log_softmax_grad, (GX, X), lambda g, y, a=a: softmax_grad(g, y, a, True), {"axis": a}) for a in (1, 2)),
    OpCase(n.layer_norm_grad, (GX, X, rand(4, seed=1)), lambda *v: affine_grad(*v, (2,)), {"axis": 2, "epsilon": EPS}),
    OpCase(
        n.layer_norm_grad,
        (GX, X, rand(3, 4, seed=1)),
        lambda *v: affine_grad(*v, (1, 2)),
        {"axis": -2, "epsilon": EPS},
        name="layer_norm_grad-two-axes",
    ),
    OpCase(
        n.rms_norm_grad,
        (GX, X, rand(4, seed=1)),
        lambda *v: affine_grad(*v, (2,), False)[:2],
        {"axis": 2, "epsilon": EPS},
    ),
    OpCase(
        n.batch_norm_train_grad,
        (GX, X, rand(3, seed=1)),
        lambda g, x, s: affine_grad(g, x, s[:, None], (0, 2)),
        {"epsilon": EPS},
    ),
    OpCase(
        n.batch_norm_train_grad,
        (rand(4, 3, seed=5), rand(4, 3), rand(3, seed=1)),
        lambda *v: affine_grad(*v, (0,)),
        {"epsilon": EPS},
    ),
    OpCase(n.batch_norm, (X, *C, *STATS), batch_norm, {"epsilon": EPS}),
    OpCase(n.batch_norm, (rand(4, 3), *C, *STATS), batch_norm, {"epsilon": EPS}),
    OpCase(n.batch_norm_train, (X, *C, *STATS), batch_norm_train, {"epsilon": EPS, "momentum": 0.8}),
    OpCase(n.batch_norm_train, (rand(4, 3), *C, *STATS), batch_norm_train, {"epsilon": EPS, "momentum": 0.8}),
    OpCase(
        n.instance_norm,
        (X, *C),
        lambda x, s, b: rows(x, (2,), standard) * s[:, None] + b[:, None],
        {"epsilon": EPS},
    ),
    OpCase(n.group_norm, G, lambda x, s, b: group_norm(x, s, b, 2), {"groups": 2, "epsilon": EPS}),
    OpCase(n.lp_norm, (LP,), lambda x: x / np.array([[3.0], [math.hypot(3, 4, 0.5)]]), {"p": 2, "axis": 1}),
    OpCase(n.lp_norm, (LP,), lambda x: x / np.array([[5.0], [7.5]]), {"p": 1, "axis": 1}, name="lp_norm-1"),
    *(
        OpCase(
            n.lrn,
            (rand(2, 6, 2),),
            lambda x, k=k: lrn(x, k),
            {"size": k, "alpha": 0.3, "beta": 0.75, "bias": 1.5},
            name=f"lrn-{k}",
        )
        for k in (3, 4)
    ),
    OpCase(n.mean_variance_norm, (X,), lambda x: rows(x, (0, 2), mean_variance), {"axes": (0, 2)}),
]
