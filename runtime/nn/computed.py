"""Attributes of modules that are computed from parameters before each forward."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import MODE
from .module import Module


def set_computed(module: Module, name: str, value: Any) -> None:
    """Set an attribute; inside a compiled function, until the trace ends."""
    if MODE.trace is not None:
        MODE.trace.undo.append(_Undo(module, name, getattr(module, name)))
    setattr(module, name, value)


class _Undo:
    """Puts an attribute back."""

    def __init__(self, module: Module, name: str, value: Any) -> None:
        self.module, self.name, self.value = module, name, value

    def __call__(self) -> None:
        """Put it back."""
        setattr(self.module, self.name, self.value)
