"""Modules as ONNX files, by PyTorch's name: `onnx.export`."""

from .importers.onnx.as_pytorch import export as export

__all__ = ["export"]
