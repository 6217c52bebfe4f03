"""What registering a hook returns."""

from ..runtime.autograd.hooks import RemovableHandle

__all__ = [
    "RemovableHandle",
]
