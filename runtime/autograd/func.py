"""`og.func`: functions that return the derivatives of functions.

The arguments that are differentiated by may be Tensors or tuples, lists and dictionaries of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ...ops.errors import AutogradError
from ..tensor.creation import zeros_like
from ..tensor.tensor import Tensor
from . import functional as functional, tape
from .grad_mode import enable_grad

Function = Callable[..., Any]
Places = int | tuple[int, ...]


def _leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [t for v in tree.values() for t in _leaves(v)]
    return [t for v in tree for t in _leaves(v)] if isinstance(tree, tuple | list) else []


def _mapped(f: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return the tree with f of each Tensor in its place."""
    if isinstance(tree, Tensor):
        return f(tree)
    if isinstance(tree, dict):
        return {k: _mapped(f, v) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(f, v) for v in tree))
    return type(tree)(_mapped(f, v) for v in tree) if isinstance(tree, tuple | list) else tree


def _rebuilt(tree: Any, values: Sequence[Any]) -> Any:
    rest = iter(values)
    return _mapped(lambda _: next(rest), tree)


def _chosen(args: tuple[Any, ...], argnums: Places, function: str) -> Any:
    places = argnums if isinstance(argnums, tuple) else (argnums,)
    for i in places:
        if not -len(args) <= i < len(args):
            raise AutogradError(f"Got argnum={i}, but only {len(args)} positional inputs ({function})")
    return tuple(args[i] for i in places) if isinstance(argnums, tuple) else args[argnums]


def _with(args: tuple[Any, ...], argnums: Places, values: Any) -> list[Any]:
    out = list(args)
    for i, v in zip(argnums, values, strict=True) if isinstance(argnums, tuple) else ((argnums, values),):
        out[i] = v
    return out


def _recorded(tree: Any) -> bool:
    return any(t.requires_grad for t in _leaves(tree))


def _own(tree: Any) -> Any:
    """Return Tensors to differentiate by, tied to those given where these are recorded."""
    return _mapped(lambda t: t.view_as(t) if t.requires_grad else t.detach().requires_grad_(), tree)


def _loose(tree: Any, keep: bool) -> Any:
    return tree if keep else _mapped(lambda t: t.detach(), tree)


def value_and_grad(func: Function, argnums: Places = 0, has_aux: bool = False) -> Function:
    """Return the function that returns the gradient of another and its value.

    Args:
        func: returns a Tensor of one element; with `has_aux`, that and anything else.
        argnums: which arguments to differentiate by.
        has_aux: whether something comes with the value.

    Raises:
        AutogradError: unless the function returns one number.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        keep = _recorded((args, kwargs))
        with enable_grad():
            xs = _own(_chosen(args, argnums, "grad"))
            out = func(*_with(args, argnums, xs), **kwargs)
            if has_aux and not (isinstance(out, tuple) and len(out) == 2):
                raise AutogradError(
                    "grad_and_value(f)(*args): output of function f should be a tuple: (output, aux) if has_aux is True"
                )
            value, aux = out if has_aux else (out, None)
            if not isinstance(value, Tensor):
                raise AutogradError(
                    f"grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got {type(value)}"
                )
            if value.ndim != 0:
                raise AutogradError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a scalar tensor, got tensor with "
                    f"{value.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            leaves = _leaves(xs)
            found: Sequence[Any] = [None] * len(leaves)
            if value.requires_grad:
                found = tape.grad(value, leaves, create_graph=keep, allow_unused=True)
        grads = [zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]
        result = _loose(_rebuilt(xs, grads), keep)
        shown = _loose((value, aux), keep)
        return (result, shown) if has_aux else (result, shown[0])

    return wrapper


def grad(func: Function, argnums: Places = 0, has_aux: bool = False) -> Function:
    """Return the function that returns the gradient of another; arguments as `value_and_grad`."""
    both = value_and_grad(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        found, value = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return wrapper


grad_and_value = value_and_grad


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> Any:
    """Return the outputs of a function, and the function that multiplies a vector with its Jacobian.

    Args:
        func: takes the primals.
        *primals: Tensors, or trees of them.
        has_aux: whether something comes with the outputs, that is returned third.
    """
    keep = _recorded(primals)
    with enable_grad():
        xs = _own(primals)
        out = func(*xs)
    value, aux = out if has_aux else (out, None)
    leaves, ys = _leaves(xs), _leaves(value)

    def pulled(*cotangents: Any) -> tuple[Any, ...]:
        vs = _leaves(cotangents)
        if len(vs) != len(ys):
            raise AutogradError(
                "Expected pytree structure of cotangents to be the same as that of the outputs: "
                f"{len(vs)} Tensors for {len(ys)} outputs"
            )
        with enable_grad():
            found = functional._grad(ys, tuple(leaves), vs, keep or _recorded(vs), retain_graph=True)
        grads = [zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]
        return _loose(_rebuilt(xs, grads), keep or _recorded(vs))  # type: ignore[no-any-return]

    shown = _loose(value, keep)
    return (shown, pulled, _loose(aux, keep)) if has_aux else (shown, pulled)


def jvp(func: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, has_aux: bool = False) -> Any:
    """Return the outputs of a function and the product of its Jacobian with a vector.

    Args:
        func: takes the primals.
        primals: Tensors, or trees of them.
        tangents: the vector: as the primals.
        has_aux: whether something comes with the outputs, that is returned third.
    """
    keep = _recorded((primals, tangents))
    with enable_grad():
        xs = _own(tuple(primals))
        out = func(*xs)
        value, aux = out if has_aux else (out, None)
        ys = tuple(_leaves(value))
        cotangents = tuple(zeros_like(y, requires_grad=True) for y in ys)
        backward = functional._grad(ys, tuple(_leaves(xs)), cotangents, create_graph=True)
        vs = _leaves(tangents)
        if len(vs) != len(backward):
            raise AutogradError(f"jvp: {len(backward)} primals and {len(vs)} tangents")
        found = functional._grad(backward, cotangents, vs, keep)
    products = [zeros_like(y) if g is None else g for g, y in zip(found, ys, strict=True)]
    result = _loose(_rebuilt(value, products), keep)
    shown = _loose(value, keep)
    return (shown, result, _loose(aux, keep)) if has_aux else (shown, result)


def _jacobians(func: Function, argnums: Places, has_aux: bool, strategy: str) -> Function:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        keep = _recorded((args, kwargs))
        chosen = _chosen(args, argnums, "jacobian")
        kept: list[Any] = []
        outer: list[Any] = []

        def flat(*leaves: Tensor) -> tuple[Tensor, ...]:
            out = func(*_with(args, argnums, _rebuilt(chosen, leaves)), **kwargs)
            value, aux = out if has_aux else (out, None)
            kept.append(aux)
            outer.append(value)
            return tuple(_leaves(value))

        forward = strategy == "forward-mode" and not keep
        rows = functional.jacobian(
            flat,
            tuple(_leaves(chosen)),
            keep,
            vectorize=forward,
            strategy="forward-mode" if forward else "reverse-mode",
        )
        found = _rebuilt(outer[0], [_rebuilt(chosen, row) for row in rows])
        return (found, _loose(kept[0], keep)) if has_aux else found

    return wrapper


def jacrev(func: Function, argnums: Places = 0, *, has_aux: bool = False, chunk_size: int | None = None) -> Function:
    """Return the function that returns the Jacobian of another, row by row.

    Args:
        func: returns a Tensor, or a tree of them.
        argnums: which arguments to differentiate by.
        has_aux: whether something comes with the outputs.
        chunk_size: taken and ignored: the rows come one after another.
    """
    return _jacobians(func, argnums, has_aux, "reverse-mode")


def jacfwd(func: Function, argnums: Places = 0, has_aux: bool = False, *, randomness: str = "error") -> Function:
    """Return the function that returns the Jacobian of another, column by column; arguments as `jacrev`."""
    return _jacobians(func, argnums, has_aux, "forward-mode")


def hessian(func: Function, argnums: Places = 0) -> Function:
    """Return the function that returns the second derivatives of another."""
    return jacrev(jacrev(func, argnums), argnums)
