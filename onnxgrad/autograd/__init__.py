"""Gradients."""

from ..runtime.checkpoint import recompute_loops
from ..runtime.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from ..runtime.gradcheck import (
    check_grads,
    gradcheck,
    gradgradcheck,
)
from ..runtime.tape import backward, grad

__all__ = [
    "backward",
    "check_grads",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "recompute_loops",
    "set_grad_enabled",
]
