"""State in a file: what `module.state_dict()` and `optimizer.state_dict()` return, and anything made of such values.

The file is a safetensors file, whatever its name ends with. Its metadata describe how the arrays are put together; a
file without that description is a dictionary of Tensors. No file is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ...ops.errors import InputError, LoadError
from ..tensor.device import to_device
from ..tensor.tensor import Tensor, wrap
from .replacing import replace_file
from .structure import decode, encode
from .weights_file import from_bytes, to_bytes

STRUCTURE = "onnxgrad.structure"
"""The metadata's key of the description."""

_CONVERT = """\
unpickling runs whatever code is in the file, so onnxgrad does not read it. Where PyTorch is installed, convert it:
    import torch
    from safetensors.torch import save_file
    state = torch.load({path!r}, map_location="cpu", weights_only=True)  # a state dict: Tensors by name
    save_file({{k: v.clone().contiguous() for k, v in state.items()}}, {new!r})"""


def is_state(data: bytes) -> bool:
    """Whether the first bytes of a file are those of safetensors: a length and the JSON object that is so long."""
    return data[8:9] == b"{" and (data[9:10] in b'"} \n\t\r' or int.from_bytes(data[:8], "little") < 1 << 32)


def refuse_pickle(data: bytes, where: str) -> None:
    """Raise where a file starts as pickles do.

    Raises:
        LoadError: saying what it is and how to convert it.
    """
    if data[:4] == b"PK\x03\x04":
        inside = data[:256]
        if b".npy" in inside:
            raise LoadError(f"{where} is an .npz file: numpy.load reads it")
        kind = "a zip file, as torch.save writes it around a pickle"
    elif data[:1] == b"\x80" and data[1:2] in b"\2\3\4\5":
        kind = "a pickle, as torch.save once wrote it"
    else:
        return
    new = os.path.splitext(where)[0] + ".safetensors"
    raise LoadError(f"{where} is {kind}: " + _CONVERT.format(path=where, new=new))


def save_state(value: Any, file: Any) -> None:
    """Write nested values to a file; an existing one is replaced in one step, or left as it was.

    Args:
        value: Tensors, arrays, numbers, strings, bytes, None, and dicts, lists, tuples and sets of these.
        file: a path, or a file open for writing.

    Raises:
        SaveError: naming a value that cannot be saved, or if the file cannot be written.
    """
    text, arrays = encode(value)
    data = to_bytes(arrays, {STRUCTURE: text})
    if hasattr(file, "write"):
        file.write(data)
    else:
        replace_file(file, [data])


def load_state(data: bytes, where: str, map_location: Any = None) -> Any:
    """Return the nested values in the bytes of a file.

    Args:
        data: the bytes.
        where: what errors call the file.
        map_location: where Tensors go: a device, a dict from the devices they were saved from to others, or a function
            of a Tensor and its device's name that returns a Tensor, or None for the device it was saved from.

    Raises:
        LoadError: naming what is wrong with the file.
        InputError: if `map_location` is something else.
    """
    place = _placing(map_location)
    arrays, metadata = from_bytes(data, where)
    if STRUCTURE in metadata:
        return decode(metadata[STRUCTURE], arrays, where, place)
    return {name: place(wrap(array), "cpu") for name, array in arrays.items()}


def _placing(map_location: Any) -> Callable[[Tensor, str], Tensor]:
    """Return what puts a Tensor where it belongs."""

    def moved(t: Tensor, target: str) -> Tensor:
        return t if target == "cpu" else wrap(to_device(t._array, target))

    if map_location is None:
        return moved
    if isinstance(map_location, str):
        return lambda t, saved: moved(t, str(map_location))
    if isinstance(map_location, Mapping):
        targets = {str(k): str(v) for k, v in map_location.items()}
        return lambda t, saved: moved(t, targets.get(saved, saved))
    if not callable(map_location):
        raise InputError(f"map_location is a device, a dict or a function, found {type(map_location).__name__}")

    def chosen(t: Tensor, saved: str) -> Tensor:
        found = map_location(t, saved)
        if found is None:
            return moved(t, saved)
        if not isinstance(found, Tensor):
            raise InputError(f"map_location returned a {type(found).__name__}, wanted a Tensor or None")
        return found

    return chosen
