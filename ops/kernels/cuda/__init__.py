"""CUDA kernels by family: text for NVRTC, calls of cuDNN and cuBLASLt, and the rules that choose them."""

from __future__ import annotations

import functools
import importlib
import pkgutil


@functools.cache
def load_rules() -> None:
    """Import every module, those with rules (`lowering.lowers`) among them; none imports CuPy or another library."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f".{module.name}", __name__)
