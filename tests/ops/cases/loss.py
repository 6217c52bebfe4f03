"""Losses: the rows of the op table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxgrad.ops.loss import binary_cross_entropy, nll_loss, softmax_cross_entropy, softmax_cross_entropy_grad

from ..case import OpCase, rand

LABELS = np.array([[1, 2], [0, 3]])
VECTOR = np.array([2, 0, 1])


def nll(x: np.ndarray, labels: np.ndarray, weights: Any, ignore: int | None, reduction: str) -> np.ndarray:
    """Pick and weigh one label at a time."""
    losses, total, out = [], [], np.zeros(labels.shape)
    for at, label in np.ndenumerate(labels):
        w = 0.0 if label == ignore else 1.0 if weights is None else float(weights[label])
        out[at] = 0.0 if label == ignore else -w * x[(at[0], label, *at[1:])]
        losses.append(out[at])
        total.append(w)
    if reduction == "none":
        return out
    return np.array(math.fsum(losses) / (math.fsum(total) if reduction == "mean" else 1.0))


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def slope(g: np.ndarray, x: np.ndarray, labels: np.ndarray, weights: Any, ignore: int | None, how: str) -> np.ndarray:
    """Differentiate the loss of one label at a time."""
    counts = np.zeros(labels.shape)
    for at, label in np.ndenumerate(labels):
        counts[at] = 0.0 if label == ignore else 1.0 if weights is None else weights[label]
    total = math.fsum(counts.reshape(-1).tolist()) if how == "mean" else 1.0
    out = np.zeros(x.shape)
    for at, label in np.ndenumerate(labels):
        where = (at[0], slice(None), *at[1:])
        p = np.exp(x[where]) / np.exp(x[where]).sum()
        p[label] -= 1
        out[where] = p * counts[at] * (g[at] if how == "none" else g) / total
    return out


def gradient_row(labels: np.ndarray, shape: tuple[int, ...], weights: Any, how: Any) -> OpCase:
    reduction, ignore = how
    return OpCase(
        softmax_cross_entropy_grad,
        (rand(*labels.shape, seed=3) if reduction == "none" else np.array(1.5), rand(*shape), labels, weights),
        lambda g, x, t, w: slope(g, x, t, w, ignore, reduction),
        {"reduction": reduction, "ignore_index": ignore},
        name=f"gradient-{len(shape)}-{reduction}-{ignore}{'' if weights is None else '-weights'}",
    )


BOTH = ((nll_loss, lambda x: x), (softmax_cross_entropy, log_softmax))


def row(op: Any, f: Any, shape: tuple[int, ...], labels: np.ndarray, weights: Any, how: Any) -> OpCase:
    reduction, ignore = how
    return OpCase(
        op,
        (rand(*shape), labels, weights),
        lambda x, t, w: nll(f(x), t, w, ignore, reduction),
        {"reduction": reduction, "ignore_index": ignore},
        name=f"{op.name}-{len(shape)}-{reduction}-{ignore}{'' if weights is None else '-weights'}",
    )


def binary(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    def one(x: float, t: float) -> float:
        yes, no = (max(math.log(p), -100.0) if p > 0 else -100.0 for p in (x, 1 - x))
        return -(t * yes + (1 - t) * no)

    return np.vectorize(one)(*np.broadcast_arrays(x, t))


CASES = [
    OpCase(binary_cross_entropy, (rand(3, 4, low=0.1, high=0.9), rand(4, low=0.0, high=1.0, seed=2)), binary),
    OpCase(
        binary_cross_entropy, (np.array([0.0, 1.0, 0.0, 1.0, 1e-300]), np.array([0.0, 1.0, 1.0, 0.0, 0.5])), binary,
        order=None, name="binary_cross_entropy-bounds",
    ),
    *(
        row(op, f, shape, labels, None, how)
        for op, f in BOTH
        for shape, labels in (((3, 4), VECTOR), ((2, 4, 2), LABELS))
        for how in (("mean", None), ("mean", 2), ("sum", 2), ("none", 2), ("none", None))
    ),
    *(
        gradient_row(labels, shape, weights, how)
        for shape, labels in (((3, 4), VECTOR), ((2, 4, 2), LABELS))
        for weights in (None, rand(4, low=0.5, seed=1))
        for how in (("mean", None), ("mean", 2), ("sum", 0), ("none", 2), ("none", None))
    ),
    *(row(op, f, (3, 4), VECTOR, rand(4, low=0.5, seed=1), ("mean", ignore)) for op, f in BOTH for ignore in (None, 0)),
]  # fmt: skip
