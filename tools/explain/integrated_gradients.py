"""Integrated gradients: the gradient along the way from a baseline to the input.

    values = (x - baseline) * integral over a in [0, 1] of  d score(baseline + a (x - baseline)) / d x

They add up to `score(x) - score(baseline)`.   Source: Sundararajan, Taly, Yan 2017, arXiv:1703.01365.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...ops.op import namespace
from ...ops.types import Array
from .explanation import Explanation
from .scores import Index, Scores, Target, chosen, evaluating, on_host, picked, spread

METHODS = ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid")


def integrated_gradients(
    model: Any,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = None,
    steps: int = 50,
    method: str = "gausslegendre",
    internal_batch_size: int | None = None,
    wrt: str | None = None,
    output: str = "logits",
    output_index: int = 0,
) -> Explanation:
    """Explain a score by what each element of the input adds to it, starting from a baseline.

    The model is used in evaluation mode and left as it was. The explanation's `delta` says for each example by how much
    the values miss `score(x) - score(baseline)`; more steps make it smaller.

    Args:
        model: an imported model, or any module.
        x: the input, one example a row; or all inputs by name.
        target: a class for all examples, or one each; the highest score by default.
        baseline: where nothing is seen: an array like `x`, one example, or a number; zeros by default.
        steps: how many gradients an example.
        method: how they are weighed, one of `METHODS`.
        internal_batch_size: how many gradients at once; by default as many as fit a budget of memory.
        wrt: which input, when `x` has several.
        output: `logits`, what comes before a final softmax, or `output`, what the model returns.
        output_index: which output, of several.

    Raises:
        InputError: if the target does not exist, the input is not of floats or the baseline does not fit it.
    """
    alphas, weights = path(method, steps)
    scores = Scores(model, x, wrt=wrt, output=output, output_index=output_index, rows=internal_batch_size)
    data, n = scores.floats(), scores.examples
    start = _baseline(baseline, data)
    way = data - start
    wanted = spread(target, n)
    targets: list[Index] = [()] * n
    ends = np.empty((2, n))
    total = np.zeros(data.shape, np.float64)

    def ask(rows: Array) -> None:
        now = scores.values(data[rows], rows)
        mine = chosen(now, [wanted[row] for row in rows])
        ends[1, rows] = picked(now, mine)
        ends[0, rows] = picked(scores.values(start[rows], rows), mine)
        for row, index in zip(rows, mine, strict=True):
            targets[row] = index

    def integrate(rows: Array) -> None:
        step, example = np.divmod(rows, n)
        at = namespace(data).asarray(alphas[step].reshape(-1, *[1] * (data.ndim - 1)), data.dtype)
        points = start[example] + at * way[example]
        gradients = on_host(scores.gradient(points, example, [targets[e] for e in example]))
        np.add.at(total, example, gradients * weights[step].reshape(-1, *[1] * (data.ndim - 1)))

    with evaluating(model):
        scores.in_rows(n, ask)
        scores.in_rows(steps * n, integrate)
    values = total * on_host(way)
    delta = values.reshape(n, -1).sum(axis=1) - (ends[1] - ends[0])
    return Explanation(
        values.astype(data.dtype), tuple(targets), ends[1].astype(data.dtype), "integrated gradients",
        on_host(scores.x), delta=delta.astype(data.dtype),
    )  # fmt: skip


def path(method: str, steps: int) -> tuple[Array, Array]:
    """Return where on the way from 0 to 1 gradients are taken, and their weights.

    Raises:
        InputError: for an unknown method, or too few steps.
    """
    if method not in METHODS:
        raise InputError(f"method is one of {', '.join(METHODS)}; found {method!r}")
    if steps < (1 if method == "gausslegendre" else 2):
        raise InputError(f"{method} wants at least {1 if method == 'gausslegendre' else 2} steps, found {steps}")
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (1 + nodes) / 2, weights / 2
    weights = np.full(steps, 1 / steps)
    if method == "riemann_trapezoid":
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
    return (np.arange(steps) + shift) / steps, weights


def _baseline(baseline: Any, data: Array) -> Array:
    xp = namespace(data)
    if baseline is None:
        return xp.zeros_like(data)
    start = xp.asarray(getattr(baseline, "array", baseline), data.dtype)
    try:
        return xp.ascontiguousarray(xp.broadcast_to(start, data.shape))
    except ValueError:
        raise InputError(f"the baseline has shape {start.shape}, the input {data.shape}") from None
