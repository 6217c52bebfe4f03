"""Functions with a backward of their own."""

from ..runtime.autograd.function import Function, FunctionCtx, once_differentiable

__all__ = [
    "Function",
    "FunctionCtx",
    "once_differentiable",
]
