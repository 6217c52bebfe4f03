"""`export`: a module becomes an `.onnx` file, by running it once on symbols and writing what it did."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...ops.dims import Dim, Shape
from ...ops.errors import SaveError
from ...ops.types import Array
from ...runtime.files.replacing import replace_file
from ...runtime.fx.graph_module import GraphModule
from ...runtime.graph.graph import Graph
from ...runtime.nn.module import Module
from ...runtime.tracing.module import leaves_of, trace_module
from .emit.graph import checked_opset, graph_to_proto
from .emit.names import read_by
from .save import PROTOBUF_LIMIT_BYTES
from .tensors import to_proto

if TYPE_CHECKING:
    import onnx

DynamicAxes: TypeAlias = "Mapping[str, Mapping[int, str] | Sequence[int]]"

IR_VERSION = 10
"""The least version of the file format that is written: what a tensor is, is said in its metadata."""
STRIP_BYTES = 1024
"""Tensors of fewer bytes stay in the file where the others lie beside it."""


def export(
    module: Module,
    path: Any,
    example_inputs: Any,
    *,
    dynamic_axes: DynamicAxes | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    external_data: bool | None = None,
) -> None:
    """Write a module as `.onnx`: what it computes on inputs like these, with its parameters under their own names.

    Args:
        module: in evaluation mode.
        path: where to; or a file open for writing.
        example_inputs: a Tensor or array, a tuple of arguments, or a dict of arguments by name. Only their types count;
            what is no Tensor or array is part of what is written.
        dynamic_axes: which sizes stay open: for an input's or output's name, names by axis, or a list of axes. The same
            name stands for the same size.
        input_names: what the file calls the Tensors; `input` if there is one, else as the arguments are called.
        output_names: what the file calls the results; `output` if there is one, else as their keys are called.
        opset_version: the ONNX operator set to write, 18 to 26; 20 by default.
        external_data: keep the weights in `<name>.data` beside the file; by default where a protobuf could not hold
            them.

    Raises:
        SaveError: if the module does what ONNX has no form for, depends on its inputs' elements in Python, changes
            itself or draws random numbers (training mode), or if the file cannot be written.
    """
    proto, arrays = _exported(module, example_inputs, dynamic_axes, input_names, output_names, opset_version)
    _write(proto, arrays, path, external_data)


def to_onnx_model(
    module: Module,
    example_inputs: Any,
    *,
    dynamic_axes: DynamicAxes | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
) -> onnx.ModelProto:
    """Return the ModelProto that `export` writes, with all weights in it."""
    proto, arrays = _exported(module, example_inputs, dynamic_axes, input_names, output_names, opset_version)
    proto.graph.initializer.extend(to_proto(a, n) for n, a in arrays.items())
    return _checked(proto)


def export_graph(
    graph: Graph,
    state: Mapping[str, Array],
    path: Any,
    *,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    external_data: bool | None = None,
    kinds: Mapping[str, str] | None = None,
) -> None:
    """Write a graph as `.onnx`.

    Args:
        graph: what to write.
        state: the arrays of its state, by name.
        path: where to; or a file open for writing.
        output_names: of its outputs; their own by default.
        opset_version: see `export`.
        external_data: see `export`.
        kinds: what each entry of the state is: parameter, buffer or constant.

    Raises:
        SaveError: if an op has no form in ONNX, or the file cannot be written.
    """
    names = [v.name for v in graph.outputs] if output_names is None else list(output_names)
    proto, arrays = _model(graph, state, names, checked_opset(opset_version), kinds, {})
    _write(proto, arrays, path, external_data)


def _exported(
    module: Any, example: Any, axes: DynamicAxes | None, input_names: Sequence[str] | None,
    output_names: Sequence[str] | None, opset: int | None,
) -> tuple[onnx.ModelProto, dict[str, Array]]:  # fmt: skip
    if not isinstance(module, Module):
        raise SaveError(f"export wants a module, found {type(module).__name__}")
    version = checked_opset(opset)
    args, kwargs = _arguments(example)
    leaves = leaves_of(args, kwargs)
    inputs = _input_names(module, args, kwargs, leaves, input_names)
    shapes, named = _open_sizes(inputs, leaves, axes or {})
    traced = trace_module(module, args, kwargs, inputs, shapes)
    outputs = _output_names(traced.result, output_names, {*inputs, *traced.graph.state})
    unknown = [n for n in named if n not in outputs]
    if unknown:
        raise SaveError(
            f"dynamic_axes names {', '.join(map(repr, unknown))}; the inputs are {', '.join(inputs)}, the outputs "
            f"{', '.join(outputs)}"
        )
    if clash := set(inputs) & set(traced.graph.state):
        raise SaveError(f"input_names: {', '.join(sorted(clash))} is the name of a parameter or buffer")
    shown = {}
    for name, value in zip(outputs, traced.graph.outputs, strict=True):
        shape = value.tensor_type.known_shape
        said = {} if shape is None else _axes_of(name, named.get(name, {}), len(shape))
        shown[name] = {a: n for a, n in said.items() if shape is not None and isinstance(shape[a], Dim)}
    return _model(traced.graph, traced.arrays, outputs, version, traced.kinds, shown)


def _model(
    graph: Graph, state: Mapping[str, Array], outputs: Sequence[str], opset: int, kinds: Mapping[str, str] | None,
    shown: Mapping[str, Mapping[int, str]],
) -> tuple[onnx.ModelProto, dict[str, Array]]:  # fmt: skip
    from importlib import metadata

    from onnx import helper

    made, constants = graph_to_proto(
        graph, name=graph.name, opset=opset, output_names=outputs, kinds=kinds, shown=shown
    )
    read = read_by(made.node)
    arrays = {v.name: np.asarray(state[key]) for key, v in graph.state.items() if v.name in read}
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, 1) for d in sorted({n.domain for n in made.node} - {""})]
    proto = helper.make_model(
        made,
        opset_imports=imports,
        ir_version=max(IR_VERSION, helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset]),
        producer_name="onnxgrad",
        producer_version=metadata.version("onnxgrad"),
    )
    return proto, {**arrays, **constants}


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional arguments and those by name; a dict at the end of a tuple is of the latter."""
    if example is None:
        raise SaveError("exporting a module wants example_inputs: a Tensor, a tuple of arguments, or a dict of them")
    if isinstance(example, dict):
        return (), dict(example)
    if isinstance(example, tuple | list):
        if example and isinstance(example[-1], dict):
            return tuple(example[:-1]), dict(example[-1])
        return tuple(example), {}
    return (example,), {}


def _input_names(
    module: Module, args: Sequence[Any], kwargs: Mapping[str, Any], leaves: Sequence[Any], given: Sequence[str] | None
) -> list[str]:
    """Return a name for each Tensor among the arguments.

    Raises:
        SaveError: if there are none, or there are more or fewer names than Tensors.
    """
    if not leaves:
        raise SaveError("there is no Tensor among the example inputs: a file without inputs computes nothing")
    if given is not None:
        names = [str(n) for n in given]
        if len(names) != len(leaves) or len(set(names)) != len(names):
            raise SaveError(f"input_names: wants {len(leaves)} different names, found {names}")
        return names
    if isinstance(module, GraphModule) and len(args) == len(leaves):
        return module.graph.input_names()[: len(args)]
    if len(leaves) == 1 and not kwargs:
        return ["input"]
    try:
        parameters = [n for n, p in inspect.signature(module.forward).parameters.items() if p.kind < p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        parameters = []
    own = [parameters[i] if i < len(parameters) else f"input_{i}" for i in range(len(args))]
    names = []
    for name, value in [*zip(own, args, strict=True), *kwargs.items()]:
        inside = len(leaves_of((value,), {}))
        names += [name] if inside == 1 else [f"{name}_{i}" for i in range(inside)]
    return names


def _output_names(result: Sequence[tuple[str, ...]], given: Sequence[str] | None, taken: set[str]) -> list[str]:
    if given is not None:
        names = [str(n) for n in given]
        if len(names) != len(result) or len(set(names)) != len(names) or taken & set(names):
            raise SaveError(
                f"output_names: wants {len(result)} different names that no input or parameter has, found {names}"
            )
        return names
    names = []
    for path in result:
        name = "_".join(path)
        name = "output" if not path else name if not name[0].isdigit() else f"output_{name}"
        while name in taken or name in names:
            name += "_out"
        names.append(name)
    return names


def _open_sizes(names: Sequence[str], leaves: Sequence[Any], axes: DynamicAxes) -> tuple[list[Shape], dict[str, Any]]:
    """Return the inputs' shapes with symbols, and what `axes` says of other names."""
    if not isinstance(axes, Mapping):
        raise SaveError(f"dynamic_axes wants a dict from names to axes, found {type(axes).__name__}")
    shapes: list[Shape] = []
    for name, x in zip(names, leaves, strict=True):
        said = _axes_of(name, axes.get(name, {}), len(x.shape))
        shapes.append(tuple(Dim.symbol(said[a]) if a in said else int(n) for a, n in enumerate(x.shape)))
    return shapes, {n: v for n, v in axes.items() if n not in names}


def _axes_of(name: str, said: Any, rank: int) -> dict[int, str]:
    """Return names by axis, counted from the front.

    Raises:
        SaveError: if there is no such axis.
    """
    if isinstance(said, Mapping):
        named = {a: str(n) for a, n in said.items()}
    else:
        named = {a: f"{name}_dynamic_axes_{i + 1}" for i, a in enumerate(said)}
    for a in named:
        if not isinstance(a, int) or not -rank <= a < rank:
            raise SaveError(f"dynamic_axes: {name!r} has {rank} axes, found axis {a!r}")
    return {a % rank: n for a, n in named.items()}


def _write(proto: onnx.ModelProto, arrays: Mapping[str, Array], path: Any, external: bool | None) -> None:
    total = sum(a.nbytes for a in arrays.values())
    beside = total > PROTOBUF_LIMIT_BYTES if external is None else external
    if hasattr(path, "write"):
        if beside:
            raise SaveError("external_data: a model in an open file keeps its weights in it")
        proto.graph.initializer.extend(to_proto(a, n) for n, a in arrays.items())
        path.write(_checked(proto).SerializeToString())
        return
    target = Path(os.fspath(path))
    blobs: list[Any] = []
    offset = 0
    for name, array in arrays.items():
        if not beside or array.nbytes < STRIP_BYTES:
            proto.graph.initializer.append(to_proto(array, name))
            continue
        tensor, padding = _stripped(name, array, f"{target.name}.data", offset)
        proto.graph.initializer.append(tensor)
        blobs += [b"\0" * padding, np.ascontiguousarray(array).data.cast("B")]
        offset += padding + array.nbytes
    if not beside:
        _checked(proto)
    if blobs:
        replace_file(target.parent / f"{target.name}.data", blobs)
    replace_file(target, [proto.SerializeToString()])


def _stripped(name: str, array: Array, location: str, offset: int) -> tuple[onnx.TensorProto, int]:
    """Return a tensor whose data lie in another file, and how many bytes are left free before them there."""
    import onnx

    from .emit.writer import elem_type

    padding = -offset % 4096
    t = onnx.TensorProto(name=name, data_type=elem_type(array.dtype), dims=array.shape)
    t.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset + padding)), ("length", str(array.nbytes))):
        entry = t.external_data.add()
        entry.key, entry.value = key, value
    return t, padding


def _checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that the standard's checker accepts.

    Raises:
        SaveError: with the checker's words, if it does not.
    """
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        opset = next(o.version for o in proto.opset_import if not o.domain)
        hint = "; bfloat16 wants opset_version=22 or more" if "bfloat16" in str(error) and opset < 22 else ""
        raise SaveError(f"what was written is no valid ONNX model: {error}{hint}") from error
    return proto


__all__ = ["DynamicAxes", "export", "export_graph", "to_onnx_model"]
