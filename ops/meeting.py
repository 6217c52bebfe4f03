"""Types where ways meet: of two branches, of a loop's turns, of what a body returns as its caller sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .dims import Dim, DimLike, symbols_in
from .errors import DTypeError
from .types import MapType, OptionalType, SequenceType, TensorType, ValueType

Types = tuple[ValueType, ...]


def stacked_type(t: ValueType, axis: int, n: DimLike) -> ValueType:
    """Return the type of n values of a type, stacked along a new axis."""
    if not isinstance(t, TensorType):
        raise DTypeError(f"control flow: the elements to stack have to be tensors, found {t}")
    if t.known_shape is None:
        return t
    axis %= t.ndim + 1
    return TensorType(t.dtype, (*t.shape[:axis], n, *t.shape[axis:]))


def bare(t: Any) -> Any:
    """Return the type without what is known of its values, which change from one iteration to the next."""
    return TensorType(t.dtype, t.known_shape) if isinstance(t, TensorType) else t


def merged(a: ValueType, b: ValueType) -> ValueType:
    """Return the type of a value that may have either type.

    Raises:
        DTypeError: if they differ in kind or element type.
    """
    if a == b:
        return a
    match a, b:
        case TensorType(), TensorType() if a.dtype == b.dtype:
            if a.known_shape is None or b.known_shape is None or len(a.known_shape) != len(b.known_shape):
                return TensorType(a.dtype, None)
            return TensorType(
                a.dtype, tuple(m if m == n else Dim.fresh() for m, n in zip(a.shape, b.shape, strict=True))
            )
        case SequenceType(), SequenceType():
            return SequenceType(merged(a.element, b.element))
        case OptionalType(), OptionalType():
            return OptionalType(merged(a.element, b.element))
        case OptionalType(), _:
            return OptionalType(merged(a.element, b))
        case _, OptionalType():
            return OptionalType(merged(a, b.element))
        case MapType(), MapType() if a.key == b.key:
            return MapType(a.key, merged(a.value, b.value))
    raise DTypeError(f"control flow: a value is {a} on one way and {b} on another")


def symbols_of(types: Iterable[Any]) -> set[str]:
    """Return the symbols that the arguments' types know."""
    known: set[str] = set()
    for t in types:
        known.update(symbols_in(t))
    return known


def outward(types: Types, known: set[str]) -> Types:
    """Return a body's output types as its caller sees them: sizes that only the body knows become fresh."""
    fresh: dict[Dim, Dim] = {}

    def seen(d: DimLike) -> DimLike:
        if isinstance(d, int) or known.issuperset(d.symbols()):
            return d
        return fresh.setdefault(d, Dim.fresh())

    def one(t: ValueType) -> ValueType:
        match t:
            case TensorType():
                shape = None if t.known_shape is None else tuple(map(seen, t.known_shape))
                return TensorType(t.dtype, shape, t.contents if known.issuperset(symbols_in(t.contents)) else None)
            case SequenceType():
                return SequenceType(one(t.element))
            case OptionalType():
                return OptionalType(one(t.element))
            case MapType():
                return MapType(t.key, one(t.value))

    return tuple(map(one, types))
