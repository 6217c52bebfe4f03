"""Gradient checks by central differences, to any order.

One random direction a check: `<v, J d>` from differences against `<J^T v, d>` from the VJP; order 2 checks the gradient
itself as a function of the inputs and of the cotangent. An order-1 check alone is known to pass wrong adjoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ops.errors import AutogradError
from ..ops.types import is_float
from . import tape
from .tensor import Tensor


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    *,
    order: int = 2,
    eps: float = 1e-6,
    tol: float = 1e-5,
    seed: int = 0,
) -> None:
    """Compare the gradients of f with central differences, up to an order.

    Args:
        f: takes Tensors (and whatever else is in `args`), returns a Tensor or a tuple of them.
        args: float64 arrays are differentiated by; anything else is handed on.
        order: 1 checks the gradient, 2 also the gradient of the gradient, and so on.
        eps: the step of the differences.
        tol: the largest difference allowed, relative to the larger of 1 and the directional derivative.
        seed: of the random directions.

    Raises:
        AutogradError: naming the order and the two numbers that differ.
    """
    rng = np.random.default_rng(seed)
    points = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and is_float(a.dtype)]
    if any(args[i].dtype != np.float64 for i in points):
        raise AutogradError("check_grads wants float64 arrays: differences in float32 prove nothing")
    _check(f, list(args), points, order, eps, tol, rng, 1)


def gradcheck(
    func: Callable[..., Any], inputs: Any, eps: float = 1e-6, atol: float = 1e-5, raise_exception: bool = True
) -> bool:
    """Return whether the gradients of a function of float64 Tensors agree with central differences.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple; those that require gradients are differentiated by.
        eps: the step of the differences.
        atol: the largest difference allowed, relative to the larger of 1 and the directional derivative.
        raise_exception: raise instead of returning False.

    Raises:
        AutogradError: naming the two numbers that differ.
    """
    return _holds(func, inputs, 1, eps, atol, raise_exception)


def gradgradcheck(
    func: Callable[..., Any], inputs: Any, eps: float = 1e-6, atol: float = 1e-5, raise_exception: bool = True
) -> bool:
    """Return whether the second derivatives agree too; arguments as `gradcheck`."""
    return _holds(func, inputs, 2, eps, atol, raise_exception)


def _holds(func: Callable[..., Any], inputs: Any, order: int, eps: float, tol: float, raises: bool) -> bool:
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    args = [t.array if isinstance(t, Tensor) and t.requires_grad else t for t in given]
    try:
        check_grads(func, args, order=order, eps=eps, tol=tol)
    except AutogradError:
        if raises:
            raise
        return False
    return True


def _outputs(f: Callable[..., Any], args: Sequence[Any]) -> list[Tensor]:
    out = f(*args)
    outs = list(out) if isinstance(out, tuple | list) else [out]
    return [t for t in outs if isinstance(t, Tensor) and is_float(t.dtype)]


def _check(
    f: Callable[..., Any], args: list[Any], points: list[int], order: int, eps: float, tol: float,
    rng: np.random.Generator, level: int,
) -> None:  # fmt: skip
    tensors = [Tensor(a, requires_grad=i in points) if isinstance(a, np.ndarray) else a for i, a in enumerate(args)]
    ys = _outputs(f, tensors)
    cotangents = [rng.standard_normal(y.shape) for y in ys]
    directions = {i: rng.standard_normal(args[i].shape) for i in points}
    numeric = 0.0
    for sign in (1, -1):
        moved = [
            Tensor(a + sign * eps * directions[i]) if i in points else t
            for i, (a, t) in enumerate(zip(args, tensors, strict=True))
        ]
        with tape.no_grad():
            for y, v in zip(_outputs(f, moved), cotangents, strict=True):
                numeric += sign * float((y.array * v).sum()) / (2 * eps)
    live = [(y, v) for y, v in zip(ys, cotangents, strict=True) if y.requires_grad]
    grads: tuple[Tensor | None, ...] = (None,) * len(points)
    if live:
        grads = tape.grad(
            [y for y, _ in live], [tensors[i] for i in points], [Tensor(v) for _, v in live],
            create_graph=order > 1, allow_unused=True,
        )  # fmt: skip
    found = sum(float((g.array * directions[i]).sum()) for i, g in zip(points, grads, strict=True) if g is not None)
    if not abs(numeric - found) <= tol * max(1.0, abs(numeric)):
        raise AutogradError(f"order {level}: differences give {numeric}, the gradient {found}")
    if order <= 1:
        return
    for k in range(len(points)):
        g = grads[k]
        if g is None or not g.requires_grad:
            continue

        def gradient(*inner: Any, k: int = k) -> Tensor:
            xs, vs = list(inner[: len(args)]), list(inner[len(args) :])
            with tape.enable_grad():
                xs = [
                    x if not isinstance(x, Tensor) or x.requires_grad or j not in points else x.requires_grad_()
                    for j, x in enumerate(xs)
                ]
                outs = [y for y in _outputs(f, xs) if y.requires_grad]
                (got,) = tape.grad(outs, [xs[points[k]]], vs, create_graph=True, allow_unused=True)
            assert isinstance(got, Tensor)
            return got

        more = [*args, *(v for _, v in live)]
        _check(gradient, more, [*points, *range(len(args), len(more))], order - 1, eps, tol * 10, rng, level + 1)
