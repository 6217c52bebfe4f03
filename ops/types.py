"""Types of values: tensors with symbolic shapes, sequences, optionals and maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from .dims import Dim, DimLike, Shape, product, show
from .errors import SymbolicError

Array: TypeAlias = Any
"""A NumPy or CuPy array."""

DType: TypeAlias = np.dtype[Any]

STRING = np.dtype(object)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALF = (np.dtype(np.float16), BFLOAT16)

CONTENTS_LIMIT = 256
"""Integer tensors of at most this many elements carry their values in their type."""


@dataclass(frozen=True)
class TensorType:
    """An element type and a shape; `known_shape` is None where not even the rank is known.

    `contents` are the values of a small tensor of integers or truth values, row-major, as dimensions: this is
    how Shape -> Gather -> Concat -> Reshape stays known before run time.
    """

    dtype: DType
    known_shape: Shape | None
    contents: tuple[DimLike, ...] | None = None

    @property
    def shape(self) -> Shape:
        """The shape. Raises `SymbolicError` where the rank is not known."""
        if self.known_shape is None:
            raise SymbolicError("the rank is known only at run time")
        return self.known_shape

    @property
    def ndim(self) -> int:
        """The rank."""
        return len(self.shape)

    @property
    def size(self) -> DimLike:
        """The number of elements."""
        return product(self.shape)

    def __str__(self) -> str:
        """Return it as `float32(n, 3, 224, 224)`."""
        return f"{dtype_name(self.dtype)}{show(self.known_shape)}"


@dataclass(frozen=True)
class SequenceType:
    """A list of values of one type."""

    element: ValueType

    def __str__(self) -> str:
        """Return it as `sequence<...>`."""
        return f"sequence<{self.element}>"


@dataclass(frozen=True)
class OptionalType:
    """A value of a type, or nothing."""

    element: ValueType

    def __str__(self) -> str:
        """Return it as `optional<...>`."""
        return f"optional<{self.element}>"


@dataclass(frozen=True)
class MapType:
    """A dictionary from keys of one element type to values of a type."""

    key: DType
    value: ValueType

    def __str__(self) -> str:
        """Return it as `map<key, value>`."""
        return f"map<{dtype_name(self.key)}, {self.value}>"


ValueType: TypeAlias = TensorType | SequenceType | OptionalType | MapType


def dtype_name(dtype: DType) -> str:
    """Return the name of an element type; strings are `string`."""
    return "string" if dtype == STRING else str(dtype.name)


def is_float(dtype: Any) -> bool:
    """Whether values of this element type have gradients (floats of every width, bfloat16 and float8 too)."""
    d = np.dtype(dtype)
    return d.kind in "fc" or (d.kind == "V" and d.name.startswith(("bfloat", "float")))


def is_integer(dtype: Any) -> bool:
    """Whether it is an integer type, int4 and the like included."""
    d = np.dtype(dtype)
    return d.kind in "iu" or (d.kind == "V" and d.name.startswith(("int", "uint")))


def type_of(array: Array) -> TensorType:
    """Return the type of an array, with its contents where it is a small integer one."""
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    contents = None
    if array.dtype.kind in "iub" and array.size <= CONTENTS_LIMIT and array.ndim <= 1:
        contents = tuple(int(v) for v in array.reshape(-1).tolist())
    return TensorType(array.dtype, tuple(array.shape), contents)


def contents_array(t: TensorType) -> Array | None:
    """Return the contents as an object array of dimensions, or None where they are not known."""
    if t.contents is None or t.known_shape is None:
        return None
    out = np.empty(len(t.contents), object)
    out[:] = t.contents
    return out.reshape([int(d) for d in t.shape])


def with_contents(t: TensorType, values: Array) -> TensorType:
    """Return the type with these object-array contents, or without where they do not fit."""
    values = np.asarray(values, dtype=object)
    if values.size > CONTENTS_LIMIT or values.ndim > 1:
        return t
    flat = tuple(v if isinstance(v, Dim) else int(v) for v in values.reshape(-1))
    return TensorType(t.dtype, tuple(values.shape), flat)


def nbytes(t: TensorType) -> int | None:
    """Return the size in bytes of a tensor with a fully known shape, else None."""
    if t.known_shape is None or any(isinstance(d, Dim) for d in t.known_shape):
        return None
    return math.prod(int(d) for d in t.known_shape) * t.dtype.itemsize
