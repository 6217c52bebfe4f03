"""Arrays by name in the safetensors format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ...ops.errors import LoadError, MissingFileError, SaveError
from ...ops.places import to_numpy
from ...ops.types import Array
from .replacing import replace_file

CODES = {
    np.dtype(dtype): code
    for dtype, code in (
        (np.bool_, "BOOL"), (np.uint8, "U8"), (np.int8, "I8"), (np.uint16, "U16"), (np.int16, "I16"),
        (np.uint32, "U32"), (np.int32, "I32"), (np.uint64, "U64"), (np.int64, "I64"), (np.float16, "F16"),
        (np.float32, "F32"), (np.float64, "F64"), (np.complex64, "C64"), (ml_dtypes.bfloat16, "BF16"),
        (ml_dtypes.float8_e4m3fn, "F8_E4M3"), (ml_dtypes.float8_e5m2, "F8_E5M2"),
        (ml_dtypes.float8_e4m3fnuz, "F8_E4M3FNUZ"), (ml_dtypes.float8_e5m2fnuz, "F8_E5M2FNUZ"),
        (ml_dtypes.float8_e8m0fnu, "F8_E8M0"),
    )
}  # fmt: skip
"""The element types that the format has, and what it calls them."""

_DTYPES = {code: dtype for dtype, code in CODES.items()}


def to_bytes(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a safetensors file.

    Raises:
        SaveError: naming an array whose element type the format does not have.
    """
    from safetensors import TensorSpec, serialize

    host: list[Array] = []
    specs: dict[str, Any] = {}
    for name, given in arrays.items():
        array = np.asarray(to_numpy(given))
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(array.shape)
        if array.dtype not in CODES:
            raise SaveError(f"cannot save {name!r}: safetensors has no element type {array.dtype}")
        host.append(array)
        specs[name] = TensorSpec(  # type: ignore[call-arg, no-untyped-call, unused-ignore]
            dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
    data: bytes = serialize(specs, dict(metadata) if metadata else None)
    del host  # until here the specs point into these
    return data


def from_bytes(data: bytes, where: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a safetensors file by name, and its metadata.

    Args:
        data: the bytes of the file.
        where: what errors call it.

    Raises:
        LoadError: naming what is wrong with it.
    """
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise LoadError(f"{where}: not a complete safetensors file: {reason}") from error

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            twice = next(k for k, _ in pairs if [k for k, _ in pairs].count(k) > 1)
            raise LoadError(f"{where}: the name {twice!r} comes twice in its header")
        return made

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length], object_pairs_hook=once)
    contents = {name: entry for name, entry in found}
    order = [name for name in header if name != "__metadata__"]
    return {name: _array(contents[name], name, where) for name in order}, header.get("__metadata__", {})


def _array(entry: dict[str, Any], name: str, where: str) -> Array:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise LoadError(f"{where}: {name!r} is of element type {entry['dtype']}, which onnxgrad does not have")
    data = entry["data"]
    if dtype == np.bool_ and data.strip(b"\0\1"):
        raise LoadError(f"{where}: {name!r} is of truth values, and holds bytes other than 0 and 1")
    try:
        return np.frombuffer(data, dtype).reshape(entry["shape"])
    except ValueError as error:
        raise LoadError(f"{where}: {name!r} has an impossible shape, {entry['shape']}: {error}") from error


def save_weights(
    arrays: Mapping[str, Array], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays by name; an existing file is replaced in one step, or left as it was.

    Raises:
        SaveError: if it cannot be written there.
    """
    replace_file(path, [to_bytes(arrays, metadata)])


def load_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of a safetensors file by name.

    Raises:
        MissingFileError: if there is none.
        LoadError: if it is not one.
    """
    return from_bytes(read_file(path), os.fspath(path))[0]


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises:
        MissingFileError: if there is none.
        LoadError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    except OSError as error:
        raise LoadError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
