"""Page-locked memory of the host: a device copies it to itself while the host goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
