"""The pair that broadcasts and undoes it; each is the other's adjoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .dims import Shape
from .op import op
from .types import TensorType

Entries: TypeAlias = tuple[Callable[[], Any] | None, ...]


@op()
def sum_to(x: TensorType, *, shape: Shape) -> TensorType:
    """Sum x over the axes along which `shape` would broadcast to it.

    Shapes: any -> `shape`.
    """
    return TensorType(x.dtype, shape)


@op(symbolic=True)
def broadcast_to(x: TensorType, *, shape: Shape) -> TensorType:
    """Repeat x along axes of size 1 and new leading axes until it has `shape`.

    Shapes: any that broadcasts -> `shape`.
    """
    return TensorType(x.dtype, shape)


@sum_to.defvjp
def _sum_to_vjp(g: Any, y: Any, x: Any, *, shape: Shape) -> Entries:
    return (lambda: broadcast_to(g, shape=tuple(x.shape)),)


@broadcast_to.defvjp
def _broadcast_to_vjp(g: Any, y: Any, x: Any, *, shape: Shape) -> Entries:
    return (lambda: sum_to(g, shape=tuple(x.shape)),)
