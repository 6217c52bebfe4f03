"""`load`: an `.onnx` file becomes a Model."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ...ops.errors import InputError, NotOnnxError
from ...runtime.compiled.choice import check_precision
from ...runtime.model.built import Built, Recalled
from ...runtime.model.model import Model
from ...runtime.tensor.stored import StoredFile
from ...runtime.tracing.collection import uncollected
from .read import broken_text, open_file, read_bytes, read_opened
from .recall import noted, recall
from .source import OnnxSource


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    widen_half: bool = True,
    threads: int | None = None,
    accuracy: str = "fast",
    precision: str = "float32",
) -> Model:
    """Load an `.onnx` model: callable, differentiable, trainable, and savable to the same file.

    The weights of large files are read when they are wanted, from the file as it is now: it stays open, and may be
    replaced or deleted. One that is written into is refused by then; `load_bytes` has no file.

    Args:
        path: the file; external data are looked for beside it.
        device: `cpu`, or `cuda[:n]`.
        widen_half: compute float16 and bfloat16 models in float32, and train them on float32 masters.
        threads: how many a run may use on the CPU; the physical cores that the process may use by default.
        accuracy: `fast`, or `exact` to leave out Winograd convolutions (5e-4 of the largest value against 1e-4).
        precision: `float32`, or `bf16`: convolutions without groups and products of matrices multiply operands rounded
            to bfloat16 and sum in float32, which changes results by 2e-3 to 6e-2 of the largest; the CPU needs
            AVX512_BF16. On CUDA activations are half precision too, and there is `fp16`.

    Raises:
        InputError: if `threads`, `accuracy` or `precision` is something else.
        KernelError: if the compiled engine, the CPU or the device cannot do the precision.
        MissingFileError: if there is no such file.
        NotOnnxError: if the file is not a complete ONNX protobuf.
        ExternalDataError: if weights beside the file are missing, short, or outside its folder.
        InvalidGraphError: if the graph contradicts itself.
        UnsupportedOperatorError: naming every operator, version and node that has no binding.
    """
    file = Path(path)
    opened = open_file(file)
    source = OnnxSource(partial(read_opened, opened, file), file, widen=widen_half)
    name = file.stem if file.stem != "model" else file.resolve().parent.name
    return _model(source, name, device, threads, accuracy, precision, opened)


def load_bytes(
    data: bytes,
    *,
    name: str = "model",
    device: str = "cpu",
    widen_half: bool = True,
    threads: int | None = None,
    accuracy: str = "fast",
    precision: str = "float32",
) -> Model:
    """Load a model from the bytes of an `.onnx` file; see `load`."""
    source = OnnxSource(read_bytes(data, name), None, widen=widen_half)
    return _model(source, name, device, threads, accuracy, precision)


def _model(
    source: OnnxSource, name: str, device: str, threads: int | None, accuracy: str, precision: str,
    opened: StoredFile | bytes | None = None,
) -> Model:  # fmt: skip
    if accuracy not in ("fast", "exact"):
        raise InputError(f"accuracy is {accuracy!r}, wanted 'fast' or 'exact'")
    check_precision(precision, device)
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, wanted 1 or more, or None for all physical cores")
    try:
        with uncollected():
            built: Built | Recalled | None = None if opened is None else recall(opened, source)
            if built is None:
                built = source.build()
                if opened is not None:
                    built.note = noted(opened, source, built)
            model = Model(built, name=name, source=source)
    except (TypeError, AttributeError) as error:
        if (bad := broken_text(source.proto)) is not None:
            raise NotOnnxError(f"{name}: a name in it is no UTF-8 text: {bad!r}") from error
        raise
    model.threads, model.accuracy, model.precision = threads, accuracy, precision
    return model if device == "cpu" else model.to(device)
