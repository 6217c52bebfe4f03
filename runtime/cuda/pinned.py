"""Page-locked memory of the host: a device copies it to itself while the host goes on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any

from ...ops.errors import DeviceError
from ...ops.kernels.array.transfer import is_pinned, pinned
from .availability import is_available

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor


def pin(t: Tensor) -> Tensor:
    """Return a copy of a Tensor in page-locked memory, from CuPy's pool; itself where nothing is gained by it.

    Raises:
        DeviceError: if it lies on a CUDA device.
    """
    from ..tensor.tensor import wrap

    if t.is_cuda:
        raise DeviceError(f"cannot pin a Tensor on {t.device}: only the CPU's memory can be pinned")
    if is_pinned(t._array) or not is_available():
        return t
    made = pinned(t._array.shape, t._array.dtype)
    made[...] = t._array
    return wrap(made)


def pin_batch(data: Any) -> Any:
    """Return what a loader hands out with its Tensors in page-locked memory.

    Mappings, sequences and named tuples are walked through, and keep their types where a copy can be filled; what else
    has a method `pin_memory` decides for itself.

    Raises:
        DeviceError: if a Tensor lies on a CUDA device.
    """
    from ..tensor.tensor import Tensor

    if isinstance(data, Tensor):
        return pin(data)
    if isinstance(data, str | bytes):
        return data
    if isinstance(data, Mapping):
        return _filled(data, {k: pin_batch(v) for k, v in data.items()})
    if isinstance(data, tuple):
        made = map(pin_batch, data)
        return type(data)(*made) if hasattr(data, "_fields") else type(data)(made)
    if isinstance(data, Sequence):
        return _filled(data, [pin_batch(v) for v in data])
    return data.pin_memory() if hasattr(data, "pin_memory") else data


def _filled(like: Any, made: Any) -> Any:
    """Return entries as the type of another mapping or sequence; as a dictionary or list where its type takes none."""
    try:
        if not isinstance(like, MutableMapping | MutableSequence):
            return type(like)(made)
        out = copy.copy(like)
        for key, value in made.items() if isinstance(made, dict) else enumerate(made):
            out[key] = value
        return out
    except TypeError:
        return made
