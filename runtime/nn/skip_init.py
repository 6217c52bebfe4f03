"""Modules whose parameters are not drawn."""

from __future__ import annotations

import inspect
from typing import Any

from ...ops.errors import ModuleError
from ..tensor import random
from .module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Any:
    """Return a module whose parameters and buffers hold arbitrary numbers: they are to be overwritten.

    Args:
        module_cls: the class; its constructor takes `device`.
        args: of the constructor.
        kwargs: of the constructor.

    Raises:
        ModuleError: if it is no such class.
    """
    if not issubclass(module_cls, Module):
        raise ModuleError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise ModuleError("Module must support a 'device' arg to skip initialization")
    with random.undrawn():
        return module_cls(*args, **kwargs).to_empty(device=kwargs.get("device"))
