"""onnxgrad behind the standard's own interface to a runtime, `onnx.backend.base.Backend`."""

from .importers.onnx.backend import (
    Backend,
    BackendRep,
    is_compatible,
    prepare,
    run_model,
    run_node,
    supports_device,
)

__all__ = [
    "Backend",
    "BackendRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
