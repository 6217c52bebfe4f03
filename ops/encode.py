"""Labels, categories and dictionaries: what turns values of one kind into values of another by a table.

None of these is differentiable. Strings are object arrays; maps are Python dictionaries.
Source: ONNX-ML LabelEncoder-4, OneHotEncoder-1, DictVectorizer-1, CastMap-1, ZipMap-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .dims import Dim
from .errors import DTypeError, OpError
from .op import op
from .places import to_numpy
from .types import STRING, Array, MapType, SequenceType, TensorType, ValueType

Key = int | float | str


@dataclass(frozen=True, eq=False)
class Table:
    """Keys and, at the same places, values; what is not a key has the default."""

    keys: Array
    values: Array
    default: Any


@op()
def label_encode(x: TensorType, *, table: Table) -> TensorType:
    """Replace each element by the value that stands beside it in a table; NaN finds NaN.

    Raises:
        DTypeError: if x is text and the keys are numbers, or the other way round.
    """
    if (x.dtype == STRING) != (table.keys.dtype == STRING):
        raise DTypeError(f"label_encode: x is {x.dtype}, the keys are {table.keys.dtype}")
    return TensorType(table.values.dtype, x.known_shape)


@op()
def one_hot_encode(x: TensorType, *, categories: tuple[Key, ...], zeros: bool = True) -> TensorType:
    """Return 1 at the place of each element's category, along a new last axis; fractions are dropped first.

    Raises:
        OpError: at run time, if an element is no category and `zeros` is False.
    """
    shape = None if x.known_shape is None else (*x.shape, len(categories))
    return TensorType(np.dtype(np.float32), shape)


@op()
def dict_vectorize(x: ValueType, *, vocabulary: tuple[Key, ...]) -> TensorType:
    """Lay the values of a dictionary out in the order of a vocabulary, zeros where it lacks a key.

    Shapes: a map -> (1, len(vocabulary)).

    Raises:
        DTypeError: if x is no map.
    """
    return TensorType(_values(x, "dict_vectorize"), (1, len(vocabulary)))


def _values(x: ValueType, name: str) -> np.dtype[Any]:
    if not isinstance(x, MapType) or not isinstance(x.value, TensorType):
        raise DTypeError(f"{name}: wants a map to tensors, found {x}")
    return x.value.dtype


@dict_vectorize.compose
def _dict_vectorize(x: dict[Any, Any], *, vocabulary: tuple[Key, ...]) -> Any:
    found = [x.get(k) for k in vocabulary]
    if any(isinstance(v, str) for v in found):
        return _texts(["" if v is None else v for v in found])
    present = [np.asarray(getattr(v, "array", v)) for v in found if v is not None]
    dtype = np.result_type(*present) if present else np.dtype(np.float32)
    if any(not hasattr(v, "dtype") for v in found if v is not None) and dtype == np.float64:
        dtype = np.dtype(np.float32)
    return np.array([[0 if v is None else np.asarray(getattr(v, "array", v)).item() for v in found]], dtype)


def _texts(values: list[str]) -> Array:
    out = np.empty((1, len(values)), object)
    out[0, :] = values
    return out


@op()
def cast_map(x: ValueType, *, dtype: str, size: int | None = None) -> TensorType:
    """Return a dictionary's values by ascending key or, with a size, each at the place that its key says.

    Shapes: a map -> (1, size). `dtype` is float32, int64 or object (text).

    Raises:
        OpError: at run time, if a key is outside the size.
    """
    _values(x, "cast_map")
    return TensorType(np.dtype(dtype), (1, Dim.fresh() if size is None else size))


@cast_map.compose
def _cast_map(x: dict[Any, Any], *, dtype: str, size: int | None = None) -> Any:
    text = dtype == "object"
    keys = sorted(x)
    if size is None:
        values = [_converted(x[k], text) for k in keys]
    else:
        if keys and not (keys[0] >= 0 and keys[-1] < size):
            raise OpError(f"cast_map: the keys {keys[0]} to {keys[-1]} do not fit a size of {size}")
        values = [_converted(x[k], text) if k in x else ("0.f" if text else 0) for k in range(size)]
    return _texts(values) if text else np.array([values], dtype)


def _converted(v: Any, text: bool) -> Any:
    v = np.asarray(getattr(v, "array", v)).item() if not isinstance(v, str) else v
    return str(v) if text else float(v) if isinstance(v, str) else v


@op()
def zip_map(x: TensorType, *, keys: tuple[Key, ...]) -> SequenceType:
    """Return for each row of x the dictionary from keys to its values.

    Shapes: (N, len(keys)) -> a sequence of N maps.
    """
    key = STRING if keys and isinstance(keys[0], str) else np.dtype(np.int64)
    return SequenceType(MapType(key, TensorType(x.dtype, ())))


@zip_map.compose
def _zip_map(x: Any, *, keys: tuple[Key, ...]) -> list[dict[Key, Any]]:
    rows = getattr(x, "array", x)
    rows = rows.reshape(-1, len(keys)) if rows.ndim != 2 else rows
    if rows.shape[1] != len(keys):
        raise OpError(f"zip_map: {rows.shape[1]} columns for {len(keys)} keys")
    return [dict(zip(keys, row, strict=True)) for row in to_numpy(rows)]
