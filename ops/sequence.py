"""Sequences and optionals: Python lists of values, and None for an empty optional.

All of these are structural: they move references, never data, except where tensors are joined or split.
Source: ONNX SequenceConstruct-11 ... ConcatFromSequence-11, SequenceMap-17, Optional-15 ...
OptionalGetElement-18.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import layout
from .control import Body, item, stacked, unstack
from .dims import Dim
from .errors import DTypeError, OpError, ShapeError
from .extent import axis_of
from .meeting import merged, outward, symbols_of
from .op import op
from .types import OptionalType, SequenceType, TensorType, ValueType

FLAG = TensorType(np.dtype(bool), ())


def element_of(t: Any, name: str) -> ValueType:
    """Return the type of a sequence's elements.

    Raises:
        DTypeError: if it is no sequence.
    """
    if isinstance(t, OptionalType):
        return element_of(t.element, name)
    if not isinstance(t, SequenceType):
        raise DTypeError(f"{name}: wants a sequence, found {t}")
    return t.element


def _plain(t: ValueType) -> ValueType:
    """Return the type without what is known of its values: elements of a sequence differ in them."""
    return TensorType(t.dtype, t.known_shape) if isinstance(t, TensorType) else t


def _either(a: ValueType, b: ValueType) -> ValueType:
    return merged(_plain(a), _plain(b))


@op()
def sequence_empty(*, element: ValueType) -> SequenceType:
    """Return a sequence of nothing."""
    return SequenceType(element)


@sequence_empty.compose
def _sequence_empty(*, element: ValueType) -> list[Any]:
    return []


@op()
def sequence_construct(*xs: ValueType) -> SequenceType:
    """Return the sequence of these values."""
    element = _plain(xs[0])
    for x in xs[1:]:
        element = _either(element, x)
    return SequenceType(element)


@sequence_construct.compose
def _sequence_construct(*xs: Any) -> list[Any]:
    return list(xs)


@op()
def sequence_at(xs: Any, position: TensorType) -> ValueType:
    """Return the value at a position, counted from the end where it is negative."""
    return element_of(xs, "sequence_at")


@sequence_at.compose
def _sequence_at(xs: list[Any], position: Any) -> Any:
    return xs[_position(position, len(xs), "sequence_at")]


def _position(position: Any, n: int, name: str) -> int:
    at = int(item(position))
    if not -n <= at < n:
        raise OpError(f"{name}: position {at} is outside a sequence of {n}")
    return at % n


@op()
def sequence_insert(xs: Any, x: ValueType, position: TensorType | None = None) -> SequenceType:
    """Return the sequence with a value put before a position, at the end by default."""
    return SequenceType(_either(element_of(xs, "sequence_insert"), x))


@sequence_insert.compose
def _sequence_insert(xs: list[Any], x: Any, position: Any = None) -> list[Any]:
    at = n = len(xs)
    if position is not None:
        at = int(item(position))
        if not -n <= at <= n:
            raise OpError(f"sequence_insert: position {at} is outside a sequence of {n}")
        at += n if at < 0 else 0
    return [*xs[:at], x, *xs[at:]]


@op()
def sequence_erase(xs: Any, position: TensorType | None = None) -> SequenceType:
    """Return the sequence without the value at a position, the last by default."""
    return SequenceType(element_of(xs, "sequence_erase"))


@sequence_erase.compose
def _sequence_erase(xs: list[Any], position: Any = None) -> list[Any]:
    at = _position(-1 if position is None else position, len(xs), "sequence_erase")
    return [*xs[:at], *xs[at + 1 :]]


@op()
def sequence_length(xs: Any) -> TensorType:
    """Return how many values a sequence has."""
    element_of(xs, "sequence_length")
    return TensorType(np.dtype(np.int64), ())


@sequence_length.compose
def _sequence_length(xs: list[Any]) -> Any:
    return np.asarray(len(xs), np.int64)


@op()
def split_to_sequence(x: TensorType, split: Any = None, *, axis: int, keepdims: bool = True) -> SequenceType:
    """Cut x along an axis: into single elements, into parts of one size, or of several.

    Shapes: x, a scalar or (n,) -> a sequence; without `split` and `keepdims` its elements have no such axis.

    Raises:
        ShapeError: if the sizes do not add up.
    """
    if x.known_shape is None:
        return SequenceType(TensorType(x.dtype, None))
    at = axis_of(axis, x.ndim, "split_to_sequence")
    if split is None and not keepdims:
        return SequenceType(TensorType(x.dtype, (*x.shape[:at], *x.shape[at + 1 :])))
    return SequenceType(TensorType(x.dtype, layout.swap(x.shape, at, 1 if split is None else Dim.fresh())))


@split_to_sequence.compose
def _split_to_sequence(x: Any, split: Any = None, *, axis: int, keepdims: bool = True) -> list[Any]:
    n = x.shape[axis]
    if split is None and not keepdims:
        return unstack(x, axis)
    if split is None:
        sizes = [1] * n
    else:
        array = getattr(split, "array", split)
        sizes = [int(v) for v in array.reshape(-1).tolist()]
        if array.ndim == 0:
            (size,) = sizes
            sizes = [min(size, n - start) for start in range(0, n, size)]
    if sum(sizes) != n:
        raise ShapeError(f"split_to_sequence: sizes {sizes} do not add up to {n}")
    return list(layout.split(x, axis=axis, sizes=tuple(sizes)))


@op()
def concat_from_sequence(xs: Any, *, axis: int, new_axis: bool = False) -> TensorType:
    """Join the tensors of a sequence along an axis, or along a new one."""
    element = element_of(xs, "concat_from_sequence")
    assert isinstance(element, TensorType)
    if element.known_shape is None:
        return element
    rank = element.ndim + new_axis
    at = axis_of(axis, rank, "concat_from_sequence")
    rest = element.shape[at:] if new_axis else element.shape[at + 1 :]
    return TensorType(element.dtype, (*element.shape[:at], Dim.fresh(), *rest))


@concat_from_sequence.compose
def _concat_from_sequence(xs: list[Any], *, axis: int, new_axis: bool = False) -> Any:
    if not xs:
        raise OpError("concat_from_sequence: the sequence is empty")
    return stacked(xs, axis) if new_axis else layout.concat(*xs, axis=axis % xs[0].ndim)


@op()
def sequence_map(*args: Any, body: Body, inputs: int) -> tuple[SequenceType, ...]:
    """Apply a body to the elements of the first sequence; other sequences go along with it, tensors stay.

    Shapes: the first `inputs` arguments, then the captures -> one sequence an output of the body.
    """
    element_of(args[0], "sequence_map")
    return tuple(SequenceType(_plain(t)) for t in outward(body.output_types, symbols_of(args)))


@sequence_map.compose
def _sequence_map(*args: Any, body: Body, inputs: int) -> tuple[list[Any], ...]:
    rows = []
    for i in range(len(args[0])):
        rows.append(body(*(a[i] if isinstance(a, list) else a for a in args[:inputs]), *args[inputs:]))
    return tuple([row[k] for row in rows] for k in range(len(body.output_types)))


@op()
def optional(x: ValueType | None = None, *, element: ValueType | None = None) -> OptionalType:
    """Return an optional that holds x, or nothing."""
    found = x if x is not None else element
    if found is None:
        raise DTypeError("optional: an empty one wants the type that it could hold")
    return OptionalType(found)


@optional.compose
def _optional(x: Any = None, *, element: ValueType | None = None) -> Any:
    return x


@op()
def optional_has_element(x: ValueType | None = None) -> TensorType:
    """Return whether an optional holds a value."""
    return FLAG


@optional_has_element.compose
def _optional_has_element(x: Any = None) -> Any:
    return np.asarray(x is not None)


@op()
def optional_get_element(x: ValueType) -> ValueType:
    """Return what an optional holds.

    Raises:
        OpError: at run time, if it holds nothing.
    """
    return x.element if isinstance(x, OptionalType) else x


@optional_get_element.compose
def _optional_get_element(x: Any) -> Any:
    if x is None:
        raise OpError("optional_get_element: the optional is empty")
    return x
