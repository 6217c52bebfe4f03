"""A file becomes a ModelProto without weights, and the weights as arrays.

Large weights of large files are not even parsed: `wire` finds where they lie, and they stay there until somebody wants
them (`runtime.stored`). Other weights leave the protobuf as they are read. External data are opened only inside the
model's folder (or the folder that the model file links into, as the Hugging Face cache does).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...ops.budget import check_size
from ...ops.errors import ExternalDataError, MissingFileError, NotOnnxError
from ...ops.types import Array
from ...runtime.tensor.stored import SUPPORTED, StoredArray, StoredFile
from .tensors import dtype_of, to_array
from .wire import LARGE_BYTES, Span, without_weights

if TYPE_CHECKING:
    import onnx

STRIP_BYTES = 1024
"""Tensors of at least this many bytes leave the protobuf."""

STORED_BYTES = 1 << 22
"""Weights stay in files of at least this many bytes."""


DATA_FIELDS = (
    "raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data",
    "data_location",
)  # fmt: skip
"""The fields of a TensorProto that hold its values or say where they are."""


@dataclass
class Weights:
    """The tensors of a file, by where they stand.

    Attributes:
        proto: the model without the data of its large tensors.
        arrays: data, or where they lie, by `id` of the light TensorProto that stays in `proto`.
        external: whether any tensor came from a file beside the model.
    """

    proto: onnx.ModelProto
    arrays: dict[int, Array | StoredArray] = field(default_factory=dict)
    keep: list[Any] = field(default_factory=list)
    external: bool = False

    def read(self, t: onnx.TensorProto) -> Array:
        """Return the data of a tensor of the model."""
        found = self.find(t)
        return found.read() if isinstance(found, StoredArray) else found

    def find(self, t: onnx.TensorProto) -> Array | StoredArray:
        """Return the data of a tensor of the model, or where they lie."""
        found = self.arrays.get(id(t))
        return to_array(t) if found is None else found


def read_model(path: str | os.PathLike[str]) -> Weights:
    """Read a model file.

    Raises:
        MissingFileError: if there is none.
        NotOnnxError: if it is not a complete ONNX protobuf.
        ExternalDataError: if its external data are missing, short, or outside the model's folder.
    """
    return read_opened(open_file(path), Path(path))


def open_file(path: str | os.PathLike[str]) -> StoredFile | bytes:
    """Open a file: the bytes of a small one, a large one as it lies.

    Raises:
        MissingFileError: if there is none.
        NotOnnxError: if it is none that can be read.
    """
    file = Path(path)
    if file.is_dir():
        raise NotOnnxError(f"{file} is a folder; pass the .onnx file in it")
    try:
        if SUPPORTED and file.stat().st_size >= STORED_BYTES:
            return StoredFile(file)
        return file.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"cannot read {file}: {error.strerror}") from error
    except OSError as error:
        raise NotOnnxError(f"cannot read {file}: {error.strerror}") from error


def read_opened(opened: StoredFile | bytes, file: Path) -> Weights:
    """Read a model of what `open_file` returned; see `read_model`."""
    if isinstance(opened, bytes):
        return strip(parse(opened, str(file)), file)
    try:
        found = without_weights(opened.mapped())
        if found is None:
            return strip(parse(opened.mapped()[:], str(file)), file)
    except OSError as error:
        raise NotOnnxError(f"cannot read {file}: {error.strerror}") from error
    light, spans = found
    places: dict[int, Place] = {i: (opened, span) for i, span in spans.items()}
    return strip(parse(light, str(file)), file, places)


def read_bytes(data: bytes, name: str) -> Weights:
    """Read a model from the bytes of a file.

    Raises:
        NotOnnxError: if they are not a complete ONNX protobuf.
        ExternalDataError: if it has external data.
    """
    found = without_weights(data) if len(data) >= STORED_BYTES else None
    if found is None:
        return strip(parse(data, name), None)
    light, spans = found
    return strip(parse(light, name), None, {i: (data, span) for i, span in spans.items()})


def parse(data: bytes, where: str) -> onnx.ModelProto:
    """Return the ModelProto in these bytes.

    Raises:
        NotOnnxError: if they are not one, or only a part of one.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not data:
        raise NotOnnxError(f"{where} is empty")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise NotOnnxError(
            f"{where} is not a complete ONNX file (damaged, truncated, or another format): {error}"
        ) from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise NotOnnxError(f"{where} holds no ONNX graph (found {len(data)} bytes of some other protobuf?)")
    if not model.opset_import:
        raise NotOnnxError(f"{where} imports no operator set; it is damaged or older than ONNX 1.0")
    return model


def broken_text(message: Any) -> bytes | None:
    """Return the first text field of a protobuf that is not UTF-8, which protobuf hands out as bytes."""
    for described, value in message.ListFields():
        values = value if described.is_repeated else [value]
        for v in values:
            if described.type == described.TYPE_STRING and isinstance(v, bytes):
                return v
            if described.type == described.TYPE_MESSAGE and (found := broken_text(v)) is not None:
                return found
    return None


def tensors_of(graph: onnx.GraphProto) -> Iterator[tuple[Any, onnx.TensorProto]]:
    """Yield (the field that holds it, tensor) of every initializer and tensor attribute, in subgraphs too."""
    for t in graph.initializer:
        yield graph, t
    for node in graph.node:
        for a in node.attribute:
            if a.HasField("t"):
                yield a, a.t
            if a.HasField("g"):
                yield from tensors_of(a.g)
            for g in a.graphs:
                yield from tensors_of(g)


Place: TypeAlias = "tuple[StoredFile | bytes, Span]"
"""Which bytes of what hold the data of a tensor."""


def strip(model: onnx.ModelProto, file: Path | None, places: Mapping[int, Place] | None = None) -> Weights:
    """Take the data of large and external tensors out of a model.

    Args:
        model: as it was parsed.
        file: where it was read.
        places: of data that were not parsed, by the number of the initializer.
    """
    import onnx

    taken: list[Array | StoredArray | None] = []
    external = False
    files: dict[Path, StoredFile] = {}
    for i, (_, t) in enumerate(tensors_of(model.graph)):  # the model's initializers come first
        is_external = t.data_location == onnx.TensorProto.EXTERNAL
        external |= is_external
        placed = _placed(t, places[i]) if places and i in places else None
        if placed is not None:
            taken.append(placed)
        elif is_external:
            taken.append(_external(t, file, files))
        elif _nbytes(t) >= STRIP_BYTES and t.data_type != onnx.TensorProto.STRING:
            array = to_array(t)
            taken.append(array if array.flags.writeable and array.base is None else array.copy())
        else:
            taken.append(None)
            continue
        for name in DATA_FIELDS:
            t.ClearField(name)
    light = onnx.ModelProto()
    light.CopyFrom(model)
    weights = Weights(light, external=external)
    for (_, t), array in zip(tensors_of(light.graph), taken, strict=True):
        if array is not None:
            weights.arrays[id(t)] = array
            weights.keep.append(t)
    return weights


def _nbytes(t: onnx.TensorProto) -> int:
    return int(t.ByteSize())


def _placed(t: onnx.TensorProto, place: Place) -> Array | StoredArray | None:
    """Return a tensor's data, which were not parsed; None where they are not plain, and are in the tensor again."""
    holder, span = place
    size = span.end - span.start
    plain = t.data_location != t.EXTERNAL and t.data_type != t.STRING and t.data_type in t.DataType.values()
    plain = plain and not any(len(getattr(t, name)) for name in DATA_FIELDS if name.endswith("_data"))
    if plain and t.data_type != t.UNDEFINED and all(d >= 0 for d in t.dims):
        dtype = dtype_of(t.data_type)
        if _bits(dtype) % 8 == 0 and math.prod(t.dims) * dtype.itemsize == size:
            if isinstance(holder, StoredFile):
                return StoredArray(holder, span.start, dtype, t.dims)
            out = np.empty(tuple(t.dims), dtype)
            out.reshape(-1).view(np.uint8)[...] = np.frombuffer(holder, np.uint8, size, span.start)
            return out
    data = holder.mapped() if isinstance(holder, StoredFile) else holder
    t.raw_data = data[span.start : span.end]
    return None


def _external(t: onnx.TensorProto, file: Path | None, files: dict[Path, StoredFile]) -> Array | StoredArray:
    info = {e.key: e.value for e in t.external_data}
    location = info.get("location", "")
    what = f"tensor {t.name!r}: external data {location!r}"
    if file is None:
        raise ExternalDataError(f"{what}: the model was not read from a file, so there is no folder to look in")
    source = locate(file, location, what)
    dtype = dtype_of(t.data_type)
    if any(d < 0 for d in t.dims):
        raise ExternalDataError(f"{what}: its shape {tuple(t.dims)} has a negative size")
    count = math.prod(t.dims)
    bits = _bits(dtype)
    wanted = (count * bits + 7) // 8
    try:
        offset, length = int(info.get("offset", 0)), int(info.get("length", wanted))
    except ValueError:
        raise ExternalDataError(f"{what}: offset and length have to be integers, found {info}") from None
    size = source.stat().st_size
    if length != wanted:
        raise ExternalDataError(f"{what}: {length} bytes for shape {tuple(t.dims)} of {dtype}, wanted {wanted}")
    if offset < 0 or offset + length > size:
        raise ExternalDataError(f"{what} is short: bytes {offset} to {offset + length} of a file of {size}")
    if bits % 8:
        copy = type(t)()
        copy.CopyFrom(t)
        copy.ClearField("external_data")
        copy.ClearField("data_location")
        with source.open("rb") as f:
            f.seek(offset)
            copy.raw_data = f.read(length)
        return to_array(copy)
    if SUPPORTED and size >= STORED_BYTES and length >= LARGE_BYTES:
        if source not in files:
            files[source] = StoredFile(source)
        return StoredArray(files[source], offset, dtype, t.dims)
    return np.fromfile(source, dtype=dtype, count=count, offset=offset).reshape(tuple(t.dims))


def _bits(dtype: np.dtype[Any]) -> int:
    for bits, names in ((4, ("int4", "uint4", "float4")), (2, ("int2", "uint2"))):
        if dtype.name.startswith(names):
            return bits
    return dtype.itemsize * 8


def locate(file: Path, location: str, what: str) -> Path:
    """Return the path of external data, which has to lie in the model's folder.

    Raises:
        ExternalDataError: if it is absolute, leaves the folder (by `..` or by a link), or is missing.
    """
    parts = Path(location).parts
    if not location or Path(location).is_absolute() or "\\" in location or ":" in location:
        raise ExternalDataError(f"{what}: the location has to be a relative path inside the model's folder")
    if ".." in parts:
        raise ExternalDataError(f"{what}: the location leaves the model's folder")
    folder = file.parent
    candidate = folder / location
    if not candidate.exists():
        raise ExternalDataError(f"{what} is missing; looked for {candidate}")
    real = candidate.resolve()
    homes = {folder.resolve(), file.resolve().parent}
    if not any(real.is_relative_to(home) for home in homes):
        raise ExternalDataError(f"{what} is a link that leaves the model's folder, to {real}")
    if not real.is_file():
        raise ExternalDataError(f"{what} is not a file")
    return real


def densify(sparse: onnx.SparseTensorProto) -> Array:
    """Return a sparse initializer as a dense array.

    Raises:
        NotOnnxError: if its indices do not fit.
    """
    values, indices = to_array(sparse.values), to_array(sparse.indices)
    try:
        check_size("sparse tensor", tuple(sparse.dims), values.dtype.itemsize)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise NotOnnxError(f"sparse tensor {sparse.values.name!r}: {error}") from error
    return dense
