"""`load`: an `.onnx` file becomes a Model."""

from __future__ import annotations

import os
from pathlib import Path

from ...ops.errors import NotOnnxError
from ...runtime.model import Model
from .read import broken_text, parse, read_model, strip
from .source import OnnxSource


def load(path: str | os.PathLike[str], *, device: str = "cpu", widen_half: bool = True) -> Model:
    """Load an `.onnx` model: callable, differentiable, trainable, and savable to the same file.

    Args:
        path: the file; external data are looked for beside it.
        device: `cpu`, or `cuda[:n]`.
        widen_half: compute float16 and bfloat16 models in float32, and train them on float32 masters.

    Raises:
        MissingFileError: if there is no such file.
        NotOnnxError: if the file is not a complete ONNX protobuf.
        ExternalDataError: if weights beside the file are missing, short, or outside its folder.
        InvalidGraphError: if the graph contradicts itself.
        UnsupportedOperatorError: naming every operator, version and node that has no binding.
    """
    source = OnnxSource(read_model(path), Path(path), widen=widen_half)
    return _model(source, Path(path).stem if Path(path).stem != "model" else Path(path).resolve().parent.name, device)


def load_bytes(data: bytes, *, name: str = "model", device: str = "cpu", widen_half: bool = True) -> Model:
    """Load a model from the bytes of an `.onnx` file; see `load`."""
    source = OnnxSource(strip(parse(data, name), None), None, widen=widen_half)
    return _model(source, name, device)


def _model(source: OnnxSource, name: str, device: str) -> Model:
    try:
        model = Model(source.build(), name=name, source=source)
    except (TypeError, AttributeError) as error:
        if (bad := broken_text(source.proto)) is not None:
            raise NotOnnxError(f"{name}: a name in it is no UTF-8 text: {bad!r}") from error
        raise
    return model if device == "cpu" else model.to(device)
