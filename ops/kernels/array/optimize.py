"""Steps of optimizers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...expr import Const, Expr, variables
from ...op import namespace
from ...optimize import adam_update, gradient_norm, sgd_update, step_numbers
from ...primitives import compile_array
from ...types import Array


@sgd_update.kernel("array")
def _sgd_update(
    p: Array, g: Array, buffer: Array | None, numbers: Array, skip: Array | None = None, factors: Sequence[Array] = (),
    *, decays: bool, nesterov: bool,
) -> tuple[Array, ...]:  # fmt: skip
    lr, weight_decay, momentum, keep = numbers
    old, g = p, _scaled(g, skip, factors)
    if decays:
        g = p * weight_decay + g
    if buffer is None:
        return _taken(skip, (old,), (p - g * lr,))
    new = buffer * momentum + g * keep
    return _taken(skip, (old, buffer), (p - (g + new * momentum if nesterov else new) * lr, new))


@adam_update.kernel("array")
def _adam_update(
    p: Array, g: Array, mean: Array, square: Array, largest: Array | None, numbers: Array, skip: Array | None = None,
    factors: Sequence[Array] = (), *, decays: bool, decoupled: bool,
) -> tuple[Array, ...]:  # fmt: skip
    xp = namespace(p)
    decay, grow_mean, keep_square, grow_square, square_scale, eps, rate = numbers
    before = (p, mean, square) if largest is None else (p, mean, square, largest)
    g = _scaled(g, skip, factors)
    if decays and decoupled:
        p = p * decay
    elif decays:
        g = p * decay + g
    mean = mean + (g - mean) * grow_mean
    square = square * keep_square + g * g * grow_square
    made: tuple[Array, ...] = (mean, square)
    if largest is not None:
        square = xp.maximum(largest, square)
        made = (*made, square)
    return _taken(skip, before, (p - mean / (xp.sqrt(square) / square_scale + eps) * rate, *made))


def _scaled(g: Array, skip: Array | None, factors: Sequence[Array]) -> Array:
    """Return a gradient times numbers, in its own type; zeros where the step is skipped."""
    g = g if skip is None else namespace(g).where(skip != 0, g.dtype.type(0), g)
    return functools.reduce(lambda x, f: x * f.astype(x.dtype), factors, g)


def _taken(skip: Array | None, old: tuple[Array, ...], new: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return what is new, or what was there where the step is skipped."""
    if skip is None:
        return new
    xp = namespace(skip)
    return tuple(xp.where(skip != 0, a, b) for a, b in zip(old, new, strict=True))


@gradient_norm.kernel("array", half="native")
def _gradient_norm(gradients: Sequence[Array], factors: Sequence[Array], *, p: float) -> tuple[Array, Array]:
    xp = namespace(*gradients)
    wide = np.result_type(np.float32, *(g.dtype for g in gradients if g.dtype == np.float64))
    parts, wild = [xp.zeros((), wide)], xp.zeros((), bool)
    for g in gradients:
        x = g.astype(wide).reshape(-1)
        wild = xp.logical_or(wild, xp.logical_not(xp.isfinite(x).all()))
        if x.size:
            x = functools.reduce(lambda a, f: a * f.astype(wide), factors, x)
            parts.append(abs(x).max() if p == math.inf else (x * x).sum())
    whole = xp.stack(parts)
    return whole.max() if p == math.inf else xp.sqrt(whole.sum()), wild.astype(np.float32)


@step_numbers.kernel("array", half="native")
def _step_numbers(
    settings: Array, skip: Array, counts: Sequence[Array], *, numbers: tuple[Expr, ...], counted: tuple[Expr, ...],
    dtype: str,
) -> tuple[Array, ...]:  # fmt: skip
    xp = namespace(settings)
    values = {f"s{i}": settings[i] for i in range(len(settings))}
    values.update((f"c{i}", c.astype(np.float64)) for i, c in enumerate(counts))
    made = xp.stack([_value(e, values, xp) for e in numbers]).astype(np.dtype(dtype))
    behind = [_value(e, values, xp).astype(c.dtype) for e, c in zip(counted, counts, strict=True)]
    return made, *(xp.where(skip != 0, c, b) for c, b in zip(counts, behind, strict=True))


def _value(expression: Expr, values: dict[str, Any], xp: Any) -> Array:
    """Return an expression of 0-d arrays as one."""
    if isinstance(expression, Const):
        return xp.asarray(expression.value, np.float64)
    names, kernel = _compiled(expression)
    return xp.asarray(kernel(*(xp.asarray(values[n]) for n in names)), np.float64)


@functools.lru_cache(maxsize=256)
def _compiled(expression: Expr) -> tuple[tuple[str, ...], Any]:
    names = tuple(sorted(variables(expression)))
    return names, compile_array(expression, names)
