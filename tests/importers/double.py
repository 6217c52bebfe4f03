"""A model in float64 in place of float32, so that differences prove something."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with float64 in place of float32 everywhere; the given one is not changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    _graph(proto.graph)
    for function in proto.functions:
        _nodes(function.node)
    return proto


def _graph(graph: onnx.GraphProto) -> None:
    for t in graph.initializer:
        _tensor(t)
    for info in (*graph.input, *graph.output):
        _type(info.type)
    del graph.value_info[:]
    _nodes(graph.node)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for a in node.attribute:
            if a.HasField("t"):
                _tensor(a.t)
            if a.name in ("to", "dtype") and a.i == TensorProto.FLOAT:
                a.i = TensorProto.DOUBLE
            if a.HasField("g"):
                _graph(a.g)


def _tensor(t: onnx.TensorProto) -> None:
    if t.data_type == TensorProto.FLOAT:
        t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))


def _type(t: onnx.TypeProto) -> None:
    if t.HasField("tensor_type") and t.tensor_type.elem_type == TensorProto.FLOAT:
        t.tensor_type.elem_type = TensorProto.DOUBLE
    if t.HasField("sequence_type"):
        _type(t.sequence_type.elem_type)
    if t.HasField("optional_type"):
        _type(t.optional_type.elem_type)
