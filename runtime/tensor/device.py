"""Devices: the CPU, and CUDA through CuPy where it is installed and a driver answers."""

from __future__ import annotations

import functools
from typing import Any

from ...ops.errors import InputError, MissingExtraError
from ...ops.transfer import transfer
from ...ops.types import Array


class device(str):  # noqa: N801 - PyTorch's name
    """A device by its name, `cpu` or `cuda:N`; equal to that string.

    Args:
        name: `cpu`, `cuda` or `cuda:N`.
        index: N, where the name has none.
    """

    __slots__ = ()

    def __new__(cls, name: str, index: int | None = None) -> device:
        """Check and complete the name."""
        kind, _, number = str(name).partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise InputError(f"no device {name!r}: there are 'cpu' and 'cuda:N'")
        place = int(number) if number else index or 0
        return super().__new__(cls, "cpu" if kind == "cpu" else f"cuda:{place}")

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
    found: Any = getattr(array, "device", None)
    return device(f"cuda:{found.id}") if hasattr(found, "id") else CPU


CPU = device("cpu")
DEFAULT = [CPU]
"""Where Tensors are made that are not told where."""
_device = device


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError(
            f"CUDA needs CuPy: pip install 'onnxgrad[cuda12]' (or 'onnxgrad[cuda13]'): {error}"
        ) from None
    return cupy


@functools.cache
def device_count() -> int:
    """Return the number of CUDA devices; 0 without CuPy or without a driver."""
    try:
        return int(_cupy().cuda.runtime.getDeviceCount())
    except Exception:  # a missing package, driver or library: whatever is wrong, there is no CUDA here
        return 0


def is_available() -> bool:
    """Whether there is a CUDA device; never an error."""
    return device_count() > 0


def current_device() -> int:
    """Return the CUDA device that new arrays go to."""
    return int(_cupy().cuda.runtime.getDevice())


def manual_seed(seed: int) -> None:
    """Seed nothing: one generator serves all devices, and `manual_seed` of the package seeds it."""


def manual_seed_all(seed: int) -> None:
    """Seed nothing: one generator serves all devices, and `manual_seed` of the package seeds it."""


def empty_cache() -> None:
    """Give the memory that the pools keep back to the CUDA device."""
    if is_available():
        _cupy().get_default_memory_pool().free_all_blocks()


def memory_allocated(device: Any = None) -> int:
    """Return how many bytes of the CUDA device Tensors take; 0 without one."""
    return int(_cupy().get_default_memory_pool().used_bytes()) if is_available() else 0


def get_device_name(device: Any = None) -> str:
    """Return the name of a CUDA device.

    Raises:
        InputError: where there is none.
    """
    if not is_available():
        raise InputError("get_device_name: no CUDA device found")
    number = current_device() if device is None else device if isinstance(device, int) else int(str(device)[5:] or 0)
    name = _cupy().cuda.runtime.getDeviceProperties(number)["name"]
    return str(name.decode())


def get_default_device() -> device:
    """Return where Tensors are made that are not told where."""
    return DEFAULT[0]


def set_default_device(device: Any) -> None:
    """Set where Tensors are made that are not told where; None is the CPU.

    Raises:
        InputError: for a device that is not there.
    """
    made = CPU if device is None else _device(device)
    if made.type == "cuda" and (made.index or 0) >= device_count():
        raise InputError(f"no device {made}: {device_count()} CUDA devices found")
    DEFAULT[0] = made


def synchronize() -> None:
    """Wait until the CUDA device has done what was asked of it."""
    if is_available():
        _cupy().cuda.runtime.deviceSynchronize()


def to_device(x: Any, name: str) -> Any:
    """Return an array or Tensor on a device, `cpu` or `cuda:N`; itself where it lies there. Gradients flow back.

    Raises:
        MissingExtraError: for CUDA without CuPy.
        InputError: for a device that is not there.
    """
    target = device(name)
    source = device_of(getattr(x, "_array", x))
    if source == target:
        return x
    if target.type == "cuda":
        _cupy()
        if (target.index or 0) >= device_count():
            raise InputError(f"no device {target}: {device_count()} CUDA devices found")
    return transfer(x, device=str(target), source=str(source))
