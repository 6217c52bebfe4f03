"""`save` and `load`: models as `.onnx`, state as safetensors."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ops.errors import InputError, LoadError, MissingFileError, NotOnnxError, SaveError
from ..runtime.files.state_file import is_state, load_state, refuse_pickle, save_state
from ..runtime.files.weights_file import read_file
from ..runtime.model.model import Model
from ..runtime.nn.module import Module

HEAD_BYTES = 256
"""What a file holds shows in its first bytes."""


def save(
    obj: Any,
    path: Any,
    example_inputs: Any = None,
    *,
    external_data: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    opset_version: int | None = None,
) -> None:
    """Write a model as `.onnx`, or state for `load`.

    - A model from `load` goes back to the nodes, names, opset and metadata it was read with, with its weights as they
      are now.
    - Any other module is run on example inputs and written as `.onnx`: what it computes, not its Python.
    - Anything else is state: `module.state_dict()`, `optimizer.state_dict()`, and dicts, lists, tuples and sets of
      Tensors, arrays, numbers, strings, bytes and None. It becomes a safetensors file, whatever the name ends with; no
      pickle. Order, element types, `requires_grad` and tied weights come back; strides do not (Tensors come back
      contiguous), Tensors that share a part of their memory come back apart, and other subclasses of dict, list and
      tuple come back as these.

    An existing file is replaced in one step; if writing fails, it is left as it was.

    Args:
        obj: what to save.
        path: where to; or a file open for writing.
        example_inputs: of a module that was not loaded: a Tensor, a tuple of arguments, or a dict of them by name. Only
            their types count.
        external_data: of a model: keep the weights in `<name>.data` beside the file; by default as it was read, or
            where a protobuf could not hold them.
        input_names: of a module: what the file calls its inputs.
        output_names: of a module: what the file calls its outputs.
        dynamic_axes: of a module: which sizes stay open: for an input's or output's name, names by axis, or a list of
            axes.
        opset_version: of a module: the ONNX operator set to write.

    Raises:
        SaveError: if a value cannot be saved, or the file not be written.
        InputError: if an argument is given that is not for such an object.
    """
    exporting = {
        "example_inputs": example_inputs,
        "input_names": input_names,
        "output_names": output_names,
        "dynamic_axes": dynamic_axes,
        "opset_version": opset_version,
    }
    given = {name: value for name, value in exporting.items() if value is not None}
    if isinstance(obj, Model) and getattr(obj, "source", None) is not None:
        if given:
            raise InputError(f"a loaded model is written as it was read: {', '.join(given)} cannot change it")
        _save_model(obj, path, external_data)
    elif isinstance(obj, Module):
        _export(obj, path, given, external_data)
    elif given or external_data is not None:
        wrong = [*given, *(["external_data"] if external_data is not None else [])]
        raise InputError(f"{', '.join(wrong)}: only a module takes that, found {type(obj).__name__}")
    else:
        save_state(obj, path)


def _save_model(model: Model, path: Any, external_data: bool | None) -> None:
    from .onnx import save as onnx

    if not hasattr(path, "write"):
        onnx.save(model, path, external_data=external_data)
    elif external_data:
        raise InputError("external_data: a model in an open file keeps its weights in it")
    else:
        path.write(onnx.to_bytes(model))


def _export(module: Module, path: Any, given: dict[str, Any], external_data: bool | None) -> None:
    from .onnx.export import export

    if given.get("example_inputs") is None:
        raise SaveError(
            f"cannot save the module {type(module).__name__} as .onnx without example_inputs: pass a Tensor, or a "
            "tuple of the arguments that it is called with; or save its state_dict()"
        )
    export(module, path, **given, external_data=external_data)


def load(
    path: Any,
    map_location: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    device: str = "cpu",
    widen_half: bool = True,
    threads: int | None = None,
    accuracy: str = "fast",
    precision: str = "float32",
) -> Any:
    """Load what a file holds: an `.onnx` model, or state that `save` wrote, or any safetensors file.

    What it is shows in the content, not in the name. A model is callable, differentiable, trainable, and savable to the
    same file. The weights of large models are read when they are wanted, from the file as it is now: it stays open, and
    may be replaced or deleted. One that is written into is refused by then; an open file is read at once.

    State is what was saved: Tensors are Tensors, and a dict keeps its order. A file that holds a pickle is refused,
    with how to convert it: nothing in a file is ever executed.

    Args:
        path: the file; a model's external data are looked for beside it. Or a file open for reading.
        map_location: of state: where Tensors go: a device, a dict from devices to devices, or a function of a Tensor
            and the name of its device; by default the device that each was saved from.
        weights_only: accepted, as `torch.load` takes it; nothing else is ever read.
        mmap: accepted, as `torch.load` takes it; state is read at once.
        device: of a model: `cpu`, or `cuda[:n]`.
        widen_half: of a model: compute float16 and bfloat16 in float32, and train them on float32 masters.
        threads: of a model: how many a run may use on the CPU; the physical cores that the process may use by default.
        accuracy: of a model: `fast`, or `exact` to leave out Winograd convolutions (5e-4 of the largest value against
            1e-4).
        precision: of a model: `float32`, or `bf16`: convolutions without groups and products of matrices multiply
            operands rounded to bfloat16 and sum in float32, which changes results by 2e-3 to 6e-2 of the largest. Needs
            AVX512_BF16.

    Raises:
        InputError: if an argument is something else.
        KernelError: if the precision is `bf16` and the compiled engine or the CPU cannot do it.
        MissingFileError: if there is no such file.
        LoadError: if it is state that is damaged, or a pickle.
        NotOnnxError: if it is neither state nor a complete ONNX protobuf.
        ExternalDataError: if weights beside the file are missing, short, or outside its folder.
        InvalidGraphError: if the graph contradicts itself.
        UnsupportedOperatorError: naming every operator, version and node that has no binding.
    """
    if hasattr(path, "read"):
        data, where = _all_of(path), str(getattr(path, "name", "the file"))
        head = data[:HEAD_BYTES]
    else:
        data, where = None, os.fspath(path)
        head = _head(where)
    state = is_state(head)
    if not state:
        refuse_pickle(head, where)
    options: dict[str, Any] = {"widen_half": widen_half, "threads": threads, "accuracy": accuracy}
    options |= {"precision": precision}
    if state:
        changed = [k for k, v in options.items() if v != _DEFAULTS[k]]
        if changed:
            raise InputError(f"{where} holds state: {', '.join(changed)} is for models")
        target = map_location if map_location is not None or device == "cpu" else device
        return load_state(read_file(path) if data is None else data, where, target)
    from .onnx import model as onnx

    if map_location is not None:
        if not isinstance(map_location, str):
            raise InputError(f"{where} holds a model: map_location is a device, found {type(map_location).__name__}")
        device = map_location
    if data is None:
        return onnx.load(path, device=device, **options)
    return onnx.load_bytes(data, name=Path(where).stem, device=device, **options)


_DEFAULTS = {
    name: inspect.signature(load).parameters[name].default
    for name in ("widen_half", "threads", "accuracy", "precision")
}


def _all_of(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes | bytearray):
        raise InputError(f"wanted a file open for reading bytes (mode 'rb'), it gave {type(data).__name__}")
    return bytes(data)


def _head(path: str) -> bytes:
    """Return the first bytes of a file.

    Raises:
        MissingFileError: if there is none.
        NotOnnxError: if it is a folder.
        LoadError: if it cannot be read.
    """
    if os.path.isdir(path):
        raise NotOnnxError(f"{path} is a folder; pass the .onnx file in it")
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise MissingFileError(f"cannot read {path}: {error.strerror}") from error
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from error
