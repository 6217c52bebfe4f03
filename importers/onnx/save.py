"""`save`: a Model goes back to the nodes, names, opset and metadata it was read with, with its weights as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ops.errors import SaveError
from ...ops.types import Array
from ...runtime.files.replacing import replace_file
from ...runtime.model.model import Model
from ...runtime.tensor.stored import StoredTensor, lying
from .read import DATA_FIELDS, STRIP_BYTES, tensors_of
from .source import OnnxSource
from .tensors import dtype_of, to_array, to_proto

if TYPE_CHECKING:
    import onnx

PROTOBUF_LIMIT_BYTES = 2_000_000_000
"""Files larger than this keep their weights beside them: a protobuf cannot be larger than 2 GiB."""


def save(model: Model, path: str | os.PathLike[str], *, external_data: bool | None = None) -> None:
    """Write a model as `.onnx`: the imported nodes, names, opset and metadata, with the weights as they are now.

    An existing file is replaced in one step; if writing fails, it is left as it was.

    Args:
        model: an imported model.
        path: where to.
        external_data: keep the weights in `<name>.data` beside the file; by default as the file was read, or where a
            protobuf could not hold them.

    Raises:
        SaveError: if it was not imported from ONNX, or cannot be written there.
    """
    source = getattr(model, "source", None)
    if not isinstance(source, OnnxSource):
        raise SaveError(f"save wants a model from og.load, found {type(model).__name__}")
    target = Path(path)
    total = sum(a.nbytes for a in source.weights.arrays.values())
    beside = external_data if external_data is not None else source.external or total > PROTOBUF_LIMIT_BYTES
    data_name = f"{target.name}.data" if beside else None
    proto, blobs = to_model(model, source, data_name)
    if data_name is not None:
        replace_file(target.parent / data_name, blobs)
    replace_file(target, [proto.SerializeToString()])


def to_bytes(model: Model) -> bytes:
    """Return a model as the bytes of an `.onnx` file."""
    source = getattr(model, "source", None)
    if not isinstance(source, OnnxSource):
        raise SaveError(f"to_bytes wants a model from og.load, found {type(model).__name__}")
    return bytes(to_model(model, source, None)[0].SerializeToString())


def to_model(model: Model, source: OnnxSource, data_name: str | None) -> tuple[onnx.ModelProto, list[bytes]]:
    """Return the ModelProto with the model's weights, and what goes into the file beside it."""
    import onnx

    names = {id(place): name for name, place in source.places.items() if place is not None}
    state = {n: t for n, t in (*model.named_parameters(), *model.named_buffers())}
    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    blobs: list[bytes] = []
    offset = 0
    for (_, old), (_, new) in zip(tensors_of(source.proto.graph), tensors_of(proto.graph), strict=True):
        name = names.get(id(old))
        array = _current(source, state, old, name)
        if array is None:
            continue
        raw = to_proto(array, old.name).raw_data
        for field in DATA_FIELDS:
            new.ClearField(field)
        del new.dims[:]
        new.dims.extend(array.shape)
        if data_name is None or array.nbytes < STRIP_BYTES:
            new.raw_data = raw
            continue
        padding = -offset % 4096
        blobs += [b"\0" * padding, raw]
        offset += padding
        new.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", data_name), ("offset", str(offset)), ("length", str(len(raw)))):
            entry = new.external_data.add()
            entry.key, entry.value = key, value
        offset += len(raw)
    _declare_outputs(proto, model)
    return proto, blobs


def _current(source: OnnxSource, state: dict[str, Any], place: onnx.TensorProto, name: str | None) -> Array | None:
    """Return the tensor's values now, in the file's element type, or None where the file holds them already."""
    stripped = source.weights.arrays.get(id(place))
    if name is not None and name in state:
        held = state[name]
        array = lying(held.stored) if isinstance(held, StoredTensor) else np.asarray(held.detach().numpy())
        array = array.astype(dtype_of(place.data_type), copy=False)
    elif name is not None and name in source.replaced:
        array = source.replaced[name]
    else:
        return None if stripped is None else lying(stripped)
    if stripped is None:
        old = to_array(place)
        if old.shape == array.shape and old.tobytes() == array.tobytes():
            return None
    return array


def _declare_outputs(proto: onnx.ModelProto, model: Model) -> None:
    """Write sizes that surgery changed into the declared outputs, and drop inner declarations that no longer hold."""
    from ...ops.types import TensorType

    changed = False
    for info, out in zip(proto.graph.output, model.outputs, strict=True):
        shape = out.type.known_shape if isinstance(out.type, TensorType) else None
        dims = info.type.tensor_type.shape.dim
        if shape is None or len(dims) != len(shape):
            continue
        for d, size in zip(dims, shape, strict=True):
            if isinstance(size, int) and d.HasField("dim_value") and d.dim_value != size:
                d.dim_value = size
                changed = True
    if changed:
        del proto.graph.value_info[:]
