"""The protocol's element types: how a tensor of each travels as JSON and as bytes."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any, Literal

import msgspec
import numpy as np

from ...ops.dims import show
from ...ops.errors import ServeError
from ...ops.types import BFLOAT16, STRING, Array, DType, is_float

DTYPES: dict[str, DType] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": BFLOAT16,
    "BYTES": STRING,
}
"""Element type by the protocol's name. BYTES are strings here: ONNX has no other byte strings."""

DATATYPES: dict[DType, str] = {dtype: name for name, dtype in DTYPES.items()}
"""The protocol's name by element type."""

EMPTY_LIMIT = 1 << 26
"""The largest product of an empty tensor's other dimensions: free for the client, memory for the model."""

_OPENING = re.compile(rb"[\s\[]*")
_LENGTH = struct.Struct("<I")


def check_shape(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape that a client sent.

    Raises:
        ServeError: if NumPy could not hold it.
    """
    extent = math.prod(max(d, 1) for d in shape)
    size = 0 if 0 in shape else extent
    if len(shape) > 64 or extent > (EMPTY_LIMIT if size == 0 else 2**62):
        raise ServeError("the shape is too large")
    return size


def from_json(data: bytes, dtype: DType, shape: tuple[int, ...]) -> Array:
    """Return the tensor that JSON `data` holds: flat in row-major order, or nested as the shape is.

    Raises:
        ServeError: if it is not that many values of this type.
    """
    size = check_shape(shape)
    opening = _OPENING.match(data)
    depth = opening.group().count(b"[") if opening else 0
    if depth > max(1, len(shape)) or (depth == 0 and shape):
        raise ServeError(f"data is nested {depth} deep, the shape {show(shape)} wants 1 or {len(shape)}")
    element = _element(dtype)
    for _ in range(depth):
        element = list[element]  # type: ignore[valid-type]
    try:
        values = msgspec.json.decode(data, type=element)
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
    except OverflowError:
        raise ServeError(f"data holds a number that {DATATYPES[dtype]} does not") from None
    except (ValueError, RecursionError) as error:
        raise ServeError(f"data: {'ragged' if 'inhomogeneous' in str(error) else error}") from None
    if is_float(dtype) and not np.isfinite(array).all():
        raise ServeError(f"data holds a number that {DATATYPES[dtype]} does not")
    if array.ndim != depth:
        raise ServeError("data: ragged")
    if depth > 1 and size and array.shape != shape:
        raise ServeError(f"data is nested as {show(array.shape)}, the shape is {show(shape)}")
    if array.size != size:
        raise ServeError(f"data has {array.size} elements, the shape {show(shape)} wants {size}")
    return array.reshape(shape)


def _element(dtype: DType) -> Any:
    if dtype == STRING:
        return str
    if dtype.kind == "b":
        return bool | Literal[0, 1]
    return float if is_float(dtype) else int


def from_bytes(data: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:
    """Return the tensor whose little-endian bytes these are; a read-only view of them where they are aligned.

    Raises:
        ServeError: if they are too few, too many, or not strings where strings are wanted.
    """
    size = check_shape(shape)
    if dtype == STRING:
        return _strings(data, size).reshape(shape)
    if len(data) != size * dtype.itemsize:
        raise ServeError(f"has {len(data)} bytes, {DATATYPES[dtype]} {show(shape)} wants {size * dtype.itemsize}")
    if dtype.kind == "b":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    array = np.frombuffer(data, dtype)
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def _strings(data: memoryview, size: int) -> Array:
    if size * _LENGTH.size > len(data):
        raise ServeError(f"has {len(data)} bytes, too few for {size} strings")
    array = np.empty(size, object)
    at = 0
    for i in range(size):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else start
        if at > len(data):
            raise ServeError(f"string {i} of {size} goes beyond the data")
        try:
            array[i] = str(data[start:at], "utf-8")
        except UnicodeDecodeError:
            raise ServeError(f"string {i} is not UTF-8") from None
    if at != len(data):
        raise ServeError(f"has {len(data)} bytes, its {size} strings end at {at}")
    return array


def to_json(array: Array) -> msgspec.Raw:
    """Return the elements as a flat JSON list, with `NaN` and `Infinity` as Triton writes them."""
    flat = array.reshape(-1)
    if array.dtype == STRING:
        return msgspec.Raw(msgspec.json.encode([text_bytes(v).decode("utf-8", "replace") for v in flat]))
    values = flat.tolist() if array.dtype.kind != "V" else flat.astype(np.float32).tolist()
    if is_float(array.dtype) and not np.isfinite(flat).all():
        return msgspec.Raw(json.dumps(values).encode())
    return msgspec.Raw(msgspec.json.encode(values))


def to_bytes(array: Array) -> bytes | memoryview:
    """Return the elements as little-endian bytes, in row-major order."""
    flat = array.reshape(-1)
    if array.dtype != STRING:
        view: memoryview = np.ascontiguousarray(flat).view(np.uint8).data
        return view
    parts: list[bytes] = []
    for value in map(text_bytes, flat):
        parts += (_LENGTH.pack(len(value)), value)
    return b"".join(parts)


def text_bytes(value: object) -> bytes:
    """Return a string tensor's element as UTF-8."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
