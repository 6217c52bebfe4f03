"""CUDA devices."""

from .runtime.device import (
    current_device,
    device_count,
    is_available,
    synchronize,
)

__all__ = [
    "current_device",
    "device_count",
    "is_available",
    "synchronize",
]
