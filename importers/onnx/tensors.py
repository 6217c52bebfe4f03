"""TensorProto to array and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import NotOnnxError
from ...ops.types import STRING, Array

if TYPE_CHECKING:
    import onnx


def to_array(t: onnx.TensorProto) -> Array:
    """Return a tensor's values; strings as an object array of text.

    Raises:
        NotOnnxError: if its data do not fit its shape and type.
    """
    import onnx
    from onnx import numpy_helper

    if any(d < 0 for d in t.dims):
        raise NotOnnxError(f"tensor {t.name!r}: its shape {tuple(t.dims)} has a negative size")
    try:
        if t.data_type == onnx.TensorProto.STRING:
            out = np.empty(len(t.string_data), object)
            out[:] = [_text(s) for s in t.string_data]
            return out.reshape(tuple(t.dims))
        return np.asarray(numpy_helper.to_array(t))
    except (ValueError, TypeError, KeyError, OverflowError, NotImplementedError) as error:
        raise NotOnnxError(f"tensor {t.name!r}: its data do not fit shape {tuple(t.dims)}: {error}") from error


def _text(s: bytes) -> str:
    return s.decode(errors="surrogateescape")


def to_proto(array: Array, name: str) -> onnx.TensorProto:
    """Return the TensorProto of an array."""
    from onnx import numpy_helper

    array = np.asarray(array)
    if array.dtype == STRING:
        array = array.astype(object)
    return numpy_helper.from_array(array, name)


def dtype_of(elem_type: int) -> np.dtype[Any]:
    """Return the element type of an ONNX type number; strings are objects.

    Raises:
        NotOnnxError: if the number stands for no type.
    """
    import onnx

    if elem_type == onnx.TensorProto.STRING:
        return STRING
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        raise NotOnnxError(f"element type {elem_type} is not one of ONNX's") from None
