"""PyTorch's public `utils`."""

from . import data

__all__ = [
    "data",
]
