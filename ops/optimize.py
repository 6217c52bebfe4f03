"""Steps of optimizers as ops: new parameters and new state from old ones and a gradient. Nothing here has a gradient.

What may change from step to step without another graph comes in `numbers`, a vector: rates, averages' factors, and what
follows from the number of steps. Whether a step is taken at all, and what gradients are multiplied with first, are
numbers of float32 that may be computed on the way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from . import pointwise as pw, reduce
from .dims import product, show
from .errors import DTypeError, ShapeError
from .expr import Expr
from .op import op
from .types import TensorType, is_float

Types: TypeAlias = tuple[TensorType, ...]

SGD_NUMBERS = ("lr", "weight_decay", "momentum", "keep")
"""What `sgd_update` reads of `numbers`, in this order."""

ADAM_NUMBERS = ("decay", "grow_mean", "keep_square", "grow_square", "square_scale", "eps", "rate")
"""What `adam_update` reads of `numbers`, in this order."""

SGD_IDLE = (0.0, 0.0, 1.0, 0.0)
"""Numbers with which `sgd_update` changes nothing by a gradient of 0."""


def adam_idle(decoupled: bool) -> tuple[float, ...]:
    """Return numbers with which `adam_update` changes nothing by a gradient of 0."""
    return (1.0 if decoupled else 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0)


@op()
def sgd_update(
    p: TensorType, g: TensorType, buffer: TensorType | None, numbers: TensorType, skip: TensorType | None = None,
    factors: Sequence[TensorType] = (), *, decays: bool, nesterov: bool,
) -> Types:  # fmt: skip
    """Return p and its momentum buffer after a step of gradient descent.

    First g is multiplied by all `factors`. With `decays` g becomes g + weight_decay p. With a buffer b:
    b' = momentum b + keep g, and the direction d is b', or g + momentum b' with `nesterov`; without, d is g.
    p' = p - lr d. Where `skip` is not 0, p and b stay what they are.

    Shapes: P, P, P or None, (4,): `SGD_NUMBERS`, () or None, list of () -> P, and P where there is a buffer.

    Raises:
        ShapeError: if shapes differ.
        DTypeError: if element types differ or are no floats.
    """
    state = () if buffer is None else (buffer,)
    return _checked("sgd_update", p, (g, *state), numbers, len(SGD_NUMBERS), skip, factors)


@op()
def adam_update(
    p: TensorType, g: TensorType, mean: TensorType, square: TensorType, largest: TensorType | None, numbers: TensorType,
    skip: TensorType | None = None, factors: Sequence[TensorType] = (), *, decays: bool, decoupled: bool,
) -> Types:  # fmt: skip
    """Return p, the averages of its gradient and of the gradient's square, and the largest such square, after a step.

    First g is multiplied by all `factors`. With `decays`, p becomes decay p where it is `decoupled`, and g becomes
    g + decay p else. Then
    m' = m + grow_mean (g - m), v' = keep_square v + grow_square g^2, u' = max(u, v') or, without `largest`, v', and
    p' = p - rate m' / (sqrt(u') / square_scale + eps). Where `skip` is not 0, everything stays what it is.

    Shapes: P, P, P, P, P or None, (7,): `ADAM_NUMBERS`, () or None, list of () -> P, P, P, and P where there is a
    largest square.

    Raises:
        ShapeError: if shapes differ.
        DTypeError: if element types differ or are no floats.
    """
    state = (mean, square) if largest is None else (mean, square, largest)
    return _checked("adam_update", p, (g, *state), numbers, len(ADAM_NUMBERS), skip, factors)


def _checked(
    name: str, p: TensorType, others: tuple[TensorType, ...], numbers: TensorType, count: int,
    skip: TensorType | None, factors: Sequence[TensorType],
) -> Types:  # fmt: skip
    for t in others:
        if t.known_shape != p.known_shape:
            raise ShapeError(f"{name}: the parameter is {show(p.known_shape)}, found {show(t.known_shape)} beside it")
    if numbers.known_shape != (count,):
        raise ShapeError(f"{name}: wants {count} numbers, found {show(numbers.known_shape)}")
    if not is_float(p.dtype) or any(t.dtype != p.dtype for t in (*others, numbers)):
        found = ", ".join(str(t.dtype) for t in (p, *others, numbers))
        raise DTypeError(f"{name}: wants floats of one type, found {found}")
    _single(name, "skip", () if skip is None else (skip,))
    _single(name, "a factor", factors)
    return (TensorType(p.dtype, p.known_shape),) * len(others)


def _single(name: str, what: str, types: Sequence[TensorType]) -> None:
    """Refuse what is not one float32."""
    for t in types:
        if t.dtype != np.float32 or t.known_shape != ():
            raise DTypeError(f"{name}: {what} is {t}, wanted one float32 without axes")


@op()
def step_numbers(
    settings: TensorType, skip: TensorType, counts: Sequence[TensorType], *, numbers: tuple[Expr, ...],
    counted: tuple[Expr, ...], dtype: str,
) -> Types:  # fmt: skip
    """Return what the formulas of a step read, and what counts steps as it is behind the step.

    Both are expressions over `s0`, `s1` ..., the settings, and `c0`, `c1` ..., the counts before the step; they are
    computed in float64. Where `skip` is not 0, the counts stay what they are.

    Shapes: (S,) of float64, (), list of () -> (len(numbers),) of `dtype`, and () for each count.

    Raises:
        ShapeError: if there are not as many counts as expressions for them.
        DTypeError: if the settings are not float64, or the flag is not float32.
    """
    if len(counts) != len(counted):
        raise ShapeError(f"step_numbers: {len(counts)} counts, but expressions for {len(counted)}")
    if settings.dtype != np.float64:
        raise DTypeError(f"step_numbers: the settings are {settings.dtype}, wanted float64")
    _single("step_numbers", "skip", (skip,))
    return TensorType(np.dtype(dtype), (len(numbers),)), *(TensorType(c.dtype, ()) for c in counts)


@op()
def gradient_norm(gradients: Sequence[TensorType], factors: Sequence[TensorType], *, p: float) -> Types:
    """Return the p-norm of all elements of all gradients together, times all factors, and whether one is not finite.

    p is 2 or inf. The second result is 1 where an element of a gradient, before the factors, is infinite or NaN, else
    0. Half precision is added up in float32.

    Shapes: list of any, list of () -> () of the widest type, float32 at least, and () of float32.

    Raises:
        ShapeError: if there is no gradient, or p is another.
        DTypeError: if a gradient is no float.
    """
    if p not in (2, math.inf):
        raise ShapeError(f"gradient_norm: p is {p}, wanted 2 or inf")
    if not gradients or not all(is_float(g.dtype) for g in gradients):
        found = ", ".join(str(g.dtype) for g in gradients) or "nothing"
        raise DTypeError(f"gradient_norm: wants floats, found {found}")
    _single("gradient_norm", "a factor", factors)
    wide = any(g.dtype == np.float64 for g in gradients)
    return TensorType(np.dtype(np.float64 if wide else np.float32), ()), TensorType(np.dtype(np.float32), ())


@gradient_norm.compose
def _gradient_norm(gradients: Sequence[Any], factors: Sequence[Any], *, p: float) -> tuple[Any, Any]:
    wide = "float64" if any(g.dtype == np.float64 for g in gradients) else "float32"
    parts, marks = [], []
    for g in gradients:
        wild = pw.logical_not(pw.less(pw.abs_(g), math.inf))
        marks.append(reduce.sum_(pw.cast(wild, dtype="float32")))
        if product(g.shape) == 0:
            continue
        x = g if str(g.dtype) == wide else pw.cast(g, dtype=wide)
        for f in factors:
            x = pw.mul(x, f if str(f.dtype) == wide else pw.cast(f, dtype=wide))
        parts.append(reduce.max_(pw.abs_(x)) if p == math.inf else reduce.sum_(pw.mul(x, x)))
    found = pw.cast(pw.greater(functools.reduce(pw.add, marks), 0.0), dtype="float32")
    if not parts:
        return pw.cast(pw.mul(functools.reduce(pw.add, marks), 0.0), dtype=wide), found
    if p == math.inf:
        return functools.reduce(pw.maximum, parts), found
    return pw.sqrt(functools.reduce(pw.add, parts)), found
