"""DLPack: Tensors that share the memory of other libraries' arrays, and the other way round."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np

from ...ops.errors import InputError
from ...ops.types import Array
from ..cuda.availability import cupy
from .capsules import BFLOAT, UINT, described, recoded
from .device import device as _device
from .exposed import share
from .tensor import Tensor

CPU, CUDA, PINNED, MANAGED = 1, 2, 3, 13
"""DLPack's kinds of devices that are known here: the CPU, CUDA, page-locked and managed memory."""


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """Return a Tensor that shares the memory of another library's array: PyTorch's, JAX's, CuPy's, NumPy's.

    Args:
        ext_tensor: an array with `__dlpack__`, or a capsule that `to_dlpack` has made.
        device: where it has to lie; a copy is made where it lies elsewhere.
        copy: True makes a copy, False refuses to.

    Raises:
        InputError: for what has no `__dlpack__`, lies on a device that is not known here, or would have to be copied.
        MissingExtraError: for memory of a CUDA device without CuPy.
    """
    if isinstance(ext_tensor, Tensor):
        ext_tensor = ext_tensor.detach()
    elif type(ext_tensor).__name__ == "PyCapsule":
        ext_tensor = _Capsule(ext_tensor)
    if not hasattr(ext_tensor, "__dlpack__"):
        raise InputError(f"from_dlpack: found {type(ext_tensor).__name__}, wanted an array with __dlpack__")
    kind = int(ext_tensor.__dlpack_device__()[0])
    if kind in (CPU, PINNED):
        array = _host_array(ext_tensor)
        share(array)
    elif kind in (CUDA, MANAGED):
        array = cupy().from_dlpack(ext_tensor)
    else:
        raise InputError(f"from_dlpack: no device of DLPack's kind {kind} is known here")
    found = Tensor(array)
    if device is not None and _device(device) != found.device:
        if copy is False:
            raise InputError(f"from_dlpack: the array lies on {found.device}; without a copy it cannot be on {device}")
        return found.to(device=device)
    return found.clone() if copy else found


def _host_array(ext_tensor: Any) -> Array:
    """Return NumPy's array of an array on the CPU, also of bfloat16, which NumPy takes as whole numbers of 16 bits."""
    try:
        found = np.from_dlpack(ext_tensor)
    except RuntimeError as error:
        capsule = ext_tensor.__dlpack__()
        if not recoded(capsule, BFLOAT, UINT):
            raise InputError(f"from_dlpack: {error}") from None
        found = np.from_dlpack(_Capsule(capsule)).view(ml_dtypes.bfloat16)
    return found if found.flags.writeable or not found.size else _writeable(found)


def _writeable(array: Array) -> Array:
    """Return an array on the same memory that may be changed: NumPy takes the protocol without versions as a ban."""
    nbytes = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
    memory = (ctypes.c_char * nbytes).from_address(array.ctypes.data)
    memory.owner = array
    return np.ndarray(array.shape, array.dtype, buffer=memory, strides=array.strides)


def to_dlpack(tensor: Tensor) -> Any:
    """Return a capsule that shares a Tensor's memory; whoever takes it takes it once."""
    return tensor.__dlpack__()


class _Capsule:
    """A capsule of the protocol without versions, as an array has it."""

    def __init__(self, capsule: Any) -> None:
        """Take a capsule."""
        self._capsule, self._described = capsule, described(capsule)

    def __dlpack__(self, **_: Any) -> Any:
        """Return the capsule."""
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the kind and the number of the device."""
        return self._described.kind, self._described.number
