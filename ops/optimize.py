"""Steps of optimizers as ops: new parameters and new state from old ones and a gradient. Nothing here has a gradient.

What may change from step to step without another graph comes in `numbers`, a vector: rates, averages' factors, and what
follows from the number of steps.
"""

from __future__ import annotations

from typing import TypeAlias

from .dims import show
from .errors import DTypeError, ShapeError
from .op import op
from .types import TensorType, is_float

Types: TypeAlias = tuple[TensorType, ...]

SGD_NUMBERS = ("lr", "weight_decay", "momentum", "keep")
"""What `sgd_update` reads of `numbers`, in this order."""

ADAM_NUMBERS = ("decay", "grow_mean", "keep_square", "grow_square", "square_scale", "eps", "rate")
"""What `adam_update` reads of `numbers`, in this order."""


@op()
def sgd_update(
    p: TensorType, g: TensorType, buffer: TensorType | None, numbers: TensorType, *, decays: bool, nesterov: bool
) -> Types:
    """Return p and its momentum buffer after a step of gradient descent.

    With `decays` g becomes g + weight_decay p. With a buffer b: b' = momentum b + keep g, and the direction d is b', or
    g + momentum b' with `nesterov`; without, d is g. p' = p - lr d.

    Shapes: P, P, P or None, (4,): `SGD_NUMBERS` -> P, and P where there is a buffer.

    Raises:
        ShapeError: if shapes differ.
        DTypeError: if element types differ or are no floats.
    """
    state = () if buffer is None else (buffer,)
    return _checked("sgd_update", p, (g, *state), numbers, len(SGD_NUMBERS), 1 + len(state))


@op()
def adam_update(
    p: TensorType, g: TensorType, mean: TensorType, square: TensorType, largest: TensorType | None, numbers: TensorType,
    *, decays: bool, decoupled: bool,
) -> Types:  # fmt: skip
    """Return p, the averages of its gradient and of the gradient's square, and the largest such square, after a step.

    With `decays`, p becomes decay p where it is `decoupled`, and g becomes g + decay p else. Then
    m' = m + grow_mean (g - m), v' = keep_square v + grow_square g^2, u' = max(u, v') or, without `largest`, v', and
    p' = p - rate m' / (sqrt(u') / square_scale + eps).

    Shapes: P, P, P, P, P or None, (7,): `ADAM_NUMBERS` -> P, P, P, and P where there is a largest square.

    Raises:
        ShapeError: if shapes differ.
        DTypeError: if element types differ or are no floats.
    """
    state = (mean, square) if largest is None else (mean, square, largest)
    return _checked("adam_update", p, (g, *state), numbers, len(ADAM_NUMBERS), 1 + len(state))


def _checked(
    name: str, p: TensorType, others: tuple[TensorType, ...], numbers: TensorType, count: int, outputs: int
) -> Types:
    for t in others:
        if t.known_shape != p.known_shape:
            raise ShapeError(f"{name}: the parameter is {show(p.known_shape)}, found {show(t.known_shape)} beside it")
    if numbers.known_shape != (count,):
        raise ShapeError(f"{name}: wants {count} numbers, found {show(numbers.known_shape)}")
    if not is_float(p.dtype) or any(t.dtype != p.dtype for t in (*others, numbers)):
        found = ", ".join(str(t.dtype) for t in (p, *others, numbers))
        raise DTypeError(f"{name}: wants floats of one type, found {found}")
    return (TensorType(p.dtype, p.known_shape),) * outputs
