"""Gradients."""

from ..runtime.autograd.anomaly import (
    detect_anomaly,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_detect_anomaly,
)
from ..runtime.autograd.checkpoint import recompute_loops
from ..runtime.autograd.function import Function
from ..runtime.autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from ..runtime.autograd.gradcheck import check_grads, gradcheck, gradgradcheck
from ..runtime.autograd.tape import backward, grad
from ..runtime.tensor.variable import Variable
from . import function, functional, graph, profiler

__all__ = [
    "Function",
    "Variable",
    "backward",
    "check_grads",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "no_grad",
    "profiler",
    "recompute_loops",
    "set_detect_anomaly",
    "set_grad_enabled",
]
