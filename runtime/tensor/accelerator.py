"""The accelerator, whatever its kind: CUDA, or none."""

from __future__ import annotations

from .device import current_device, device, device_count, is_available, synchronize

__all__ = ["current_accelerator", "current_device_index", "device_count", "is_available", "synchronize"]


def current_accelerator(check_available: bool = False) -> device | None:
    """Return the accelerator as a device, None where there is none."""
    return device("cuda") if is_available() else None


def current_device_index() -> int:
    """Return the number of the device that new arrays go to."""
    return current_device()
