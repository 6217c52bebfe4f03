"""Tensors that modules register."""

from ..runtime.nn.parameter import Buffer, Parameter

__all__ = [
    "Buffer",
    "Parameter",
]
