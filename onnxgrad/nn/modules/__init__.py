"""Modules by the names of PyTorch's `nn.modules`."""

from . import (
    module,
)

__all__ = [
    "module",
]
