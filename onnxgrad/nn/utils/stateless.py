"""Calls of modules with other parameters than their own."""

from ...runtime.nn.stateless import deprecated_functional_call as functional_call

__all__ = [
    "functional_call",
]
