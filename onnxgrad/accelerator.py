"""The accelerator, whatever its kind."""

from .runtime.tensor.accelerator import (
    current_accelerator,
    current_device_index,
    device_count,
    is_available,
    synchronize,
)

__all__ = [
    "current_accelerator",
    "current_device_index",
    "device_count",
    "is_available",
    "synchronize",
]
