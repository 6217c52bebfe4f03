"""Which axis a number means, and the names that PyTorch takes over from NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from ....ops.dims import Dim
from ....ops.errors import AxisError

P = ParamSpec("P")
R = TypeVar("R")

_NUMPY = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x2": "other"}


def place(dim: Any, ndim: int) -> int:
    """Return a non-negative axis; a scalar has the axes 0 and -1.

    Raises:
        AxisError: if there is no such axis.
    """
    rank = max(ndim, 1)
    at = int(dim)
    if not -rank <= at < rank:
        raise AxisError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {at})")
    return at % rank


def places(dims: Any, ndim: int, what: str) -> tuple[int, ...]:
    """Return several non-negative axes, or one.

    Raises:
        AxisError: if there is no such axis, or one comes twice.
    """
    given: Iterable[Any] = dims if isinstance(dims, tuple | list) else (dims,)
    found = tuple(place(d, ndim) for d in given)
    if len(set(found)) != len(found):
        twice = next(d for d in found if found.count(d) > 1)
        raise AxisError(f"{what}: dim {twice} appears multiple times in the list of dims")
    return found


def every(dims: Any, ndim: int, what: str) -> tuple[int, ...] | None:
    """Return the axes that a reduction goes over; None, which is all, for None and for no axes."""
    if dims is None or (isinstance(dims, tuple | list) and not dims):
        return None
    found = places(dims, ndim, what)
    return found if ndim else None


def sizes(args: tuple[Any, ...], keyword: Any = None) -> tuple[Any, ...]:
    """Return sizes or axes that came one by one, as one sequence, or by name."""
    if keyword is not None:
        args = (keyword,)
    given = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    return tuple(n if isinstance(n, Dim) else int(n) for n in given)


def numpy_names(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method take `axis` for `dim`, `keepdims` for `keepdim` and `x2` for `other`, as PyTorch's do."""

    @functools.wraps(method)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs and not _NUMPY.keys().isdisjoint(kwargs):
            kwargs = {_NUMPY.get(k, k): v for k, v in kwargs.items()}  # type: ignore[assignment]
        return method(*args, **kwargs)

    return named
