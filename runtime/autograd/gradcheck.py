"""Gradient checks by central differences, to any order.

`gradcheck` compares whole Jacobians, as PyTorch's does. `check_grads` takes one random direction a check: `<v, J d>`
from differences against `<J^T v, d>` from the VJP; order 2 checks the gradient itself as a function of the inputs and
of the cotangent. An order-1 check alone is known to pass wrong adjoints.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ops.errors import AutogradError, OpError
from ...ops.types import is_float
from ..tensor.device import to_device
from ..tensor.tensor import Tensor
from . import tape


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
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Return whether the gradients of a function of float64 Tensors agree with central differences.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple; those that require gradients are differentiated by.
        eps: the step of the differences.
        atol: how far an element of the Jacobian may be off.
        rtol: the same, relative to the element.
        raise_exception: raise instead of returning False.
        nondet_tol: how far two runs of the same backward may be apart.
        check_undefined_grad: taken: gradients that are not there count as zeros here.
        check_grad_dtypes: taken: a gradient has the element type of its input here.
        check_batched_grad: False: there are no batched gradients.
        check_batched_forward_grad: False: there is no forward mode.
        check_forward_ad: False: there is no forward mode.
        check_backward_ad: True: there is nothing else to check.
        fast_mode: compare one random direction instead of the whole Jacobian.
        masked: taken: there are no sparse Tensors.

    Raises:
        AutogradError: naming the output and the input, with both Jacobians.
        OpError: for what cannot be checked, and if no input requires a gradient.
    """
    if check_batched_grad or check_batched_forward_grad or check_forward_ad or not check_backward_ad:
        raise OpError("gradcheck: there is reverse mode without batches to check, and nothing else")
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t.requires_grad]
    if not wanted:
        raise OpError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have "
            "requires_grad=True."
        )
    for i in wanted:
        if given[i].dtype != np.float64:
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or complex. This check "
                "will likely fail if all the inputs are not of double precision floating point or complex. ",
                stacklevel=2,
            )
    try:
        if fast_mode:
            args = [t.array.astype(np.float64) if i in wanted else t for i, t in enumerate(given)]
            check_grads(func, args, order=1, eps=eps, tol=max(atol, rtol))
        else:
            _compare_jacobians(func, given, wanted, eps, atol, rtol, nondet_tol)
    except AutogradError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Return whether the second derivatives agree with differences of the first; see `gradcheck`.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of them.
        inputs: a Tensor or a tuple; those that require gradients are differentiated by.
        grad_outputs: cotangents, by which the gradient is differentiated too; random by default.
        eps: see `gradcheck`, as all that follow.
        atol: how far an element may be off.
        rtol: the same, relative to the element.
        gen_non_contig_grad_outputs: let the random cotangents lie scattered in memory.
        raise_exception: raise instead of returning False.
        nondet_tol: how far two runs of the same backward may be apart.
        check_undefined_grad: taken.
        check_grad_dtypes: taken.
        check_batched_grad: False.
        fast_mode: compare one random direction.
        masked: taken.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outputs = _outputs(func, given)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        cotangents = []
        for y in outputs:
            v = rng.standard_normal(y.shape)
            if gen_non_contig_grad_outputs and v.ndim:
                v = np.repeat(v, 2, -1)[..., ::2]
            cotangents.append(Tensor(v.astype(y.dtype, copy=False), requires_grad=True))
    else:
        cotangents = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def gradient(*args: Any) -> tuple[Tensor, ...]:
        xs, vs = args[: len(given)], args[len(given) :]
        points = [t for t in xs if isinstance(t, Tensor) and t.requires_grad]
        live = [(y, v) for y, v in zip(_outputs(func, xs), vs, strict=True) if y.requires_grad]
        with tape.enable_grad():
            found = tape.grad([y for y, _ in live], points, [v for _, v in live], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradient,
        (*given, *cotangents),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_batched_grad=check_batched_grad,
        fast_mode=fast_mode,
    )


def _compare_jacobians(
    func: Callable[..., Any],
    given: list[Any],
    wanted: list[int],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
) -> None:
    """Compare every element of the Jacobian of every output by every input."""
    count = len(_outputs(func, given))
    numeric = [[_differences(func, given, i, k, eps) for i in wanted] for k in range(count)]
    for k in range(count):
        rows = [_jacobians(func, given, wanted, k) for _ in range(2)]
        for place, i in enumerate(wanted):
            a, n = rows[0][place], numeric[k][place]
            if not np.allclose(a, n, rtol, atol, equal_nan=True):
                raise AutogradError(
                    f"Jacobian mismatch for output {k} with respect to input {i},\nnumerical:{Tensor(n)}\n"
                    f"analytical:{Tensor(a)}\n"
                )
            if not np.abs(a - rows[1][place]).max(initial=0) <= nondet_tol:
                raise AutogradError(
                    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times "
                    "gives different values, although analytical gradient matches numerical gradient. The tolerance "
                    f"for nondeterminism was {nondet_tol}."
                )


def _differences(func: Callable[..., Any], given: list[Any], place: int, output: int, eps: float) -> Any:
    """Return the Jacobian by central differences: a row for each element of the input."""
    point, device = given[place].detach().cpu().array, given[place].device
    rows = []
    for at in np.ndindex(point.shape):
        ends = []
        for sign in (1, -1):
            moved = point.copy()
            moved[at] += sign * eps
            there = Tensor(to_device(moved, device), requires_grad=True)
            args = [there if i == place else t for i, t in enumerate(given)]
            ends.append(_outputs(func, args)[output].detach().cpu().array.astype(np.float64).reshape(-1))
        rows.append((ends[0] - ends[1]) / (2 * eps))
    size = _outputs(func, given)[output].numel()
    return np.stack(rows) if rows else np.zeros((0, size))


def _jacobians(func: Callable[..., Any], given: list[Any], wanted: list[int], output: int) -> list[Any]:
    """Return the Jacobians of one output by backward: a row for each element of the input."""
    args = [Tensor(t.array, requires_grad=True) if i in wanted else t for i, t in enumerate(given)]
    y = _outputs(func, args)[output]
    columns: list[list[Any]] = [[] for _ in wanted]
    for at in np.ndindex(y.shape):
        unit = np.zeros(y.shape, y.dtype)
        unit[at] = 1
        grads: Any = [None] * len(wanted)
        if y.requires_grad:
            v = Tensor(to_device(unit, y.device))
            grads = tape.grad(y, [args[i] for i in wanted], v, retain_graph=True, allow_unused=True)
        for column, g, i in zip(columns, grads, wanted, strict=True):
            row = np.zeros(given[i].numel()) if g is None else g.detach().cpu().array.reshape(-1)
            column.append(row.astype(np.float64))
    return [np.stack(c, 1) if c else np.zeros((given[i].numel(), 0)) for c, i in zip(columns, wanted, strict=True)]


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
