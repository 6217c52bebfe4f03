"""`onnx.export` by PyTorch's name and arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...ops.errors import SaveError
from ...runtime.nn.module import Module
from . import export as exporting
from .export import DynamicAxes


def export(
    model: Module,
    args: Any = (),
    f: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    verbose: bool | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamo: bool = True,
    external_data: bool | None = None,
    dynamic_shapes: Any = None,
    optimize: bool = True,
    verify: bool = False,
    export_params: bool = True,
    keep_initializers_as_inputs: bool = False,
    dynamic_axes: DynamicAxes | None = None,
    training: Any = None,
    do_constant_folding: bool = True,
) -> Any:
    """Write a module as `.onnx`; `onnxgrad.save` does the same.

    Args:
        model: in evaluation mode.
        args: the example inputs: a Tensor, or a tuple of arguments.
        f: where to, a path or an open file; for None the ModelProto is returned.
        kwargs: example inputs by name.
        verbose: accepted; nothing is printed.
        input_names: what the file calls its inputs.
        output_names: what the file calls its outputs.
        opset_version: the ONNX operator set to write.
        dynamo: accepted; there is one way to export.
        external_data: keep the weights in a file beside; by default where a protobuf could not hold them.
        dynamic_shapes: not understood; `dynamic_axes` says the same.
        optimize: accepted; constants are always folded.
        verify: accepted; the file is always checked against the standard.
        export_params: has to be True.
        keep_initializers_as_inputs: has to be False.
        dynamic_axes: which sizes stay open.
        training: accepted as None; the module's own mode counts.
        do_constant_folding: accepted; constants are always folded.

    Raises:
        SaveError: if the module cannot be exported, or an argument asks for something that there is not.
    """
    if dynamic_shapes is not None:
        raise SaveError("onnx.export: dynamic_shapes is not understood; pass dynamic_axes={'input': {0: 'batch'}}")
    if not export_params or keep_initializers_as_inputs:
        raise SaveError(
            "onnx.export: parameters are written as initializers that are no inputs, and always with values"
        )
    example = (*(args if isinstance(args, tuple | list) else (args,)), *([dict(kwargs)] if kwargs else []))
    options: dict[str, Any] = {
        "input_names": input_names,
        "output_names": output_names,
        "opset_version": opset_version,
        "dynamic_axes": dynamic_axes,
    }
    if f is None:
        return exporting.to_onnx_model(model, example, **options)
    exporting.export(model, f, example, external_data=external_data, **options)
    return None
