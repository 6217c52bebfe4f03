"""CUDA devices by PyTorch's names: which there are, which is the current one, what they can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .availability import cupy, is_available, look
from .checks import settle
from .memory import current, number_of

BFLOAT16_FROM = (8, 0)
"""The compute capability that multiplies bfloat16."""


def is_initialized() -> bool:
    """Return whether CUDA can be used: it is set up by its first use."""
    return is_available()


def init() -> None:
    """Set CUDA up, which its first use does anyway.

    Raises:
        MissingExtraError: without CuPy.
        DeviceError: without a driver or a device.
    """
    cupy()


def current_device() -> int:
    """Return the number of this thread's current CUDA device, which `cuda` stands for."""
    return int(cupy().cuda.runtime.getDevice())


def current_or_first() -> int:
    """Return what `cuda` stands for: this thread's current device, the first one where CUDA was not used yet."""
    if not look.cache_info().currsize:
        return 0
    found = look()
    return int(found.cupy.cuda.runtime.getDevice()) if found.devices else 0


def set_device(device: Any) -> None:
    """Make a CUDA device this thread's current one; a negative number changes nothing."""
    if isinstance(device, int) and device < 0:
        return
    cupy().cuda.Device(number_of(device)).use()


class device:  # noqa: N801 - PyTorch's name
    """Make a CUDA device the current one for the time of a `with` block; None or a negative number changes nothing."""

    def __init__(self, device: Any) -> None:
        """Choose the device: a number, `cuda:N`, or None."""
        self.idx = -1 if device is None or (isinstance(device, int) and device < 0) else number_of(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        """Make it the current one."""
        if self.idx >= 0:
            self.prev_idx = current_device()
            set_device(self.idx)

    def __exit__(self, *_: object) -> None:
        """Go back to the one before."""
        set_device(self.prev_idx)


class device_of(device):  # noqa: N801 - PyTorch's name
    """Make the device of a Tensor the current one for the time of a `with` block; on the CPU nothing changes."""

    def __init__(self, obj: Any) -> None:
        """Choose the device of a Tensor."""
        super().__init__(obj.get_device() if obj.is_cuda else -1)


@dataclass(frozen=True)
class DeviceProperties:
    """What a device is.

    Attributes:
        name: the model's.
        major: of the compute capability.
        minor: of the compute capability.
        total_memory: in bytes.
        multi_processor_count: how many multiprocessors there are.
        warp_size: threads of a warp.
        max_threads_per_multi_processor: that can be resident.
        regs_per_multiprocessor: 32-bit registers.
        shared_memory_per_block: in bytes, without being asked for.
        shared_memory_per_block_optin: in bytes, at most.
        shared_memory_per_multiprocessor: in bytes.
        L2_cache_size: in bytes.
    """

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_multi_processor: int
    regs_per_multiprocessor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    L2_cache_size: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Return what a device is."""
    found = cupy().cuda.runtime.getDeviceProperties(number_of(device))
    name = found["name"]
    return DeviceProperties(
        name=name.decode() if isinstance(name, bytes) else str(name),
        major=int(found["major"]),
        minor=int(found["minor"]),
        total_memory=int(found["totalGlobalMem"]),
        multi_processor_count=int(found["multiProcessorCount"]),
        warp_size=int(found["warpSize"]),
        max_threads_per_multi_processor=int(found["maxThreadsPerMultiProcessor"]),
        regs_per_multiprocessor=int(found.get("regsPerMultiprocessor", 0)),
        shared_memory_per_block=int(found["sharedMemPerBlock"]),
        shared_memory_per_block_optin=int(found.get("sharedMemPerBlockOptin", found["sharedMemPerBlock"])),
        shared_memory_per_multiprocessor=int(found.get("sharedMemPerMultiprocessor", 0)),
        L2_cache_size=int(found.get("l2CacheSize", 0)),
    )


def get_device_name(device: Any = None) -> str:
    """Return the name of a CUDA device."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Return the compute capability of a CUDA device: (9, 0) for an H100."""
    found = get_device_properties(device)
    return found.major, found.minor


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Return whether bfloat16 is computed with; False without a device."""
    return is_available() and (including_emulation or get_device_capability() >= BFLOAT16_FROM)


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Return whether a device reads another's memory directly."""
    one, other = number_of(device), number_of(peer_device)
    return bool(cupy().cuda.runtime.deviceCanAccessPeer(one, other))


def synchronize(device: Any = None) -> None:
    """Wait until a CUDA device has done what was asked of it; without one there is nothing to wait for.

    Raises:
        OnnxGradError: if a program that ran there met bad input.
    """
    if is_available():
        with current(device) as library:
            library.cuda.runtime.deviceSynchronize()
            settle(number_of(device))
