"""Devices: the CPU, and CUDA through CuPy where it is installed and a driver answers (`runtime/cuda/`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...ops.errors import InputError
from ...ops.places import place_of
from ...ops.transfer import transfer
from ...ops.types import Array, DType
from ..autograd.saved import Late
from ..cuda.availability import cupy, device_count, is_available
from ..cuda.devices import current_device, current_or_first, synchronize

__all__ = [
    "CPU",
    "DEFAULT",
    "adopted",
    "current_device",
    "device",
    "device_count",
    "device_of",
    "get_default_device",
    "is_available",
    "named",
    "on",
    "set_default_device",
    "synchronize",
    "to_device",
]


class device(str):  # noqa: N801 - PyTorch's name
    """A device by its name, `cpu` or `cuda:N`; equal to that string.

    Args:
        name: `cpu`, `cuda` (the current CUDA device), `cuda:N`, or N.
        index: N, where the name has none.
    """

    __slots__ = ()

    def __new__(cls, name: str | int, index: int | None = None) -> device:
        """Check and complete the name."""
        if isinstance(name, device):
            return name
        kind, _, number = (f"cuda:{name}" if isinstance(name, int) else str(name)).partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise InputError(f"no device {name!r}: there are 'cpu' and 'cuda:N'")
        if kind == "cpu":
            return super().__new__(cls, "cpu")
        place = int(number) if number else current_or_first() if index is None else index
        return super().__new__(cls, f"cuda:{place}")

    @property
    def type(self) -> str:
        """`cpu` or `cuda`."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """Which CUDA device; None for the CPU."""
        number = self.partition(":")[2]
        return int(number) if number else None

    def __repr__(self) -> str:
        """Return it as PyTorch prints it."""
        tail = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{tail})"


def device_of(array: Array) -> device:
    """Return where an array lies."""
    return CPU if type(array) is np.ndarray else device(place_of(array))


def named(target: Any) -> bool:
    """Whether something that `to` is given is the name of a device."""
    return isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")


def element_type(target: Any) -> DType:
    """Return the element type that `to` is given.

    Raises:
        InputError: if it is none.
    """
    try:
        found: DType = np.dtype(target)
    except TypeError:
        raise InputError(
            f"{target!r} is no element type and no device; there are types such as 'float32', 'bfloat16' and 'int64', "
            "and the devices 'cpu' and 'cuda:N'"
        ) from None
    return found


CPU = device("cpu")
DEFAULT = [CPU]
"""Where Tensors are made that are not told where."""
_device = device


def get_default_device() -> device:
    """Return where Tensors are made that are not told where."""
    return DEFAULT[0]


def set_default_device(device: Any) -> None:
    """Set where Tensors are made that are not told where; None is the CPU.

    Raises:
        MissingExtraError: for CUDA without CuPy.
        DeviceError: for CUDA without a driver or a device.
        InputError: for a device that is not there.
    """
    made = CPU if device is None else _device(device)
    _check(made)
    DEFAULT[0] = made


def to_device(x: Any, name: Any, wait: bool = True) -> Any:
    """Return an array or Tensor on a device; itself where it lies there. Gradients flow back.

    Args:
        x: the array or Tensor.
        name: `cpu`, `cuda` (the current CUDA device), `cuda:N`, or N.
        wait: whether the elements are there for the host when this returns.

    Raises:
        MissingExtraError: for CUDA without CuPy.
        DeviceError: for CUDA without a driver or a device.
        InputError: for a device that is not there.
    """
    array = getattr(x, "_array", x)
    if name == "cpu" and type(array) is np.ndarray:
        return x
    target = device(name)
    source = device_of(array)
    if source == target:
        return x
    cupy()
    _check(target)
    more = {} if wait else {"wait": False}
    if target == CPU and wait:
        Late.guard.reads(array, "to('cpu')")
    at = target.index if target.index is not None else source.index
    with Late.guard.at(at, f"to('{target}')"):
        return transfer(x, device=str(target), source=str(source), **more)


def adopted(array: Any) -> Any:
    """Return an array of another library that lies on a CUDA device as CuPy's, sharing its memory."""
    library = cupy()
    return array if isinstance(array, library.ndarray) else library.asarray(array)


@contextmanager
def on(place: Any) -> Iterator[Any]:
    """Make a CUDA device, or that of an array, the current one for the time of a `with` block, and give CuPy.

    Raises:
        MissingExtraError: without CuPy.
        DeviceError: without a driver or a device.
        InputError: for a device that is not there.
    """
    target = place if isinstance(place, device) else device_of(place)
    _check(target)
    library = cupy()
    with Late.guard.at(target.index, "a new Tensor"):
        yield library


def _check(target: device) -> None:
    if target.type == "cuda":
        cupy()
        count = device_count()
        if (target.index or 0) >= count:
            raise InputError(f"no device {target}: {count} CUDA device{'s' * (count != 1)} found")
