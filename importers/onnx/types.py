"""Declared types: TypeProto to value types and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.dims import Dim, DimLike
from ...ops.errors import NotOnnxError
from ...ops.types import STRING, MapType, OptionalType, SequenceType, TensorType, ValueType
from .tensors import dtype_of

if TYPE_CHECKING:
    import onnx


def value_type(type_: onnx.TypeProto, name: str | None) -> ValueType:
    """Return the type that a file declares; sizes that it leaves out become fresh symbols.

    Raises:
        NotOnnxError: if it declares none, or one that has no values here.
    """
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        t = getattr(type_, kind)
        if not t.elem_type:
            return TensorType(np.dtype(np.float32), None)
        shape: tuple[DimLike, ...] | None = None
        if t.HasField("shape"):
            shape = tuple(_dim(d) for d in t.shape.dim)
        return TensorType(dtype_of(t.elem_type), shape)
    if kind == "sequence_type":
        return SequenceType(value_type(type_.sequence_type.elem_type, name))
    if kind == "optional_type":
        return OptionalType(value_type(type_.optional_type.elem_type, name))
    if kind == "map_type":
        return MapType(dtype_of(type_.map_type.key_type), value_type(type_.map_type.value_type, name))
    if kind is None and name is None:
        return TensorType(np.dtype(np.float32), None)
    raise NotOnnxError(f"input {name!r} has no type that values can have ({kind})")


def _dim(d: Any) -> DimLike:
    if d.HasField("dim_value") and d.dim_value > 0:
        return int(d.dim_value)
    if d.HasField("dim_value") and d.dim_value == 0:
        return 0
    if d.dim_param:
        return Dim.symbol(d.dim_param)
    return Dim.fresh()


def type_proto(t: ValueType) -> onnx.TypeProto:
    """Return a type as a file declares it; symbolic sizes are left open."""
    from onnx import helper

    match t:
        case SequenceType():
            return helper.make_sequence_type_proto(type_proto(t.element))
        case OptionalType():
            return helper.make_optional_type_proto(type_proto(t.element))
        case MapType():
            return helper.make_map_type_proto(_number(t.key), type_proto(t.value))
    assert isinstance(t, TensorType)
    shape = None if t.known_shape is None else [d if isinstance(d, int) else None for d in t.known_shape]
    return helper.make_tensor_type_proto(_number(t.dtype), shape)


def _number(dtype: Any) -> int:
    from onnx import TensorProto, helper

    return TensorProto.STRING if dtype == STRING else int(helper.np_dtype_to_tensor_dtype(dtype))
