"""Nodes that are translated at run time: a binding that wants a rank which the file leaves open waits for it.

PyTorch exports `squeeze` of an axis that may be 1 as an If whose branches differ in rank; what follows is
late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ops import control
from ...ops.types import TensorType, ValueType, type_of
from ...runtime.graph.execute import run_graph
from ...runtime.graph.graph import Graph, Value
from .node import NodeView
from .registry import translate
from .tensors import to_proto
from .types import type_proto, value_type

KEPT = 64
"""How many translations of one node, for inputs of different shapes, are kept."""


class LateBody:
    """One node as a body: it is translated when its inputs are there, once for each combination of types.

    Args:
        node: the node.
        inputs: its inputs in the graph around it; None where an optional one is left out.
        output_types: what is known of its outputs.
    """

    def __init__(self, node: NodeView, inputs: Sequence[Value | None], output_types: tuple[ValueType, ...]) -> None:
        """Wait; see the class for the arguments."""
        self.node, self.inputs, self.output_types = node, tuple(inputs), output_types
        self._graphs: dict[tuple[ValueType, ...], Graph] = {}

    @property
    def arguments(self) -> tuple[Value, ...]:
        """The inputs that run time gives: all but the constants."""
        return tuple(v for v in self.inputs if v is not None and not v.is_constant)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Translate the node for these inputs, or remember how, and run it."""
        types = tuple(_type(a, v) for a, v in zip(args, self.arguments, strict=True))
        graph = self._graphs.get(types)
        if graph is None:
            if len(self._graphs) >= KEPT:
                self._graphs.clear()
            graph = self._graphs[types] = self._translated(types)
        return run_graph(graph, args)

    def _translated(self, types: tuple[ValueType, ...]) -> Graph:
        graph = Graph(self.node.name, source=self.node)
        given = iter(types)
        with graph.building():
            inputs = tuple(v if v is None or v.is_constant else graph.input(v.name, next(given)) for v in self.inputs)
            graph.outputs = list(translate(self.node, inputs)[: len(self.output_types)])
        return graph

    def __repr__(self) -> str:
        """Return `<late Conv-11 'name'>`."""
        return f"<late {self.node}>"


def _type(a: Any, v: Value) -> ValueType:
    array = getattr(a, "array", a)
    if isinstance(a, Value):
        return a.type
    return type_of(array) if hasattr(array, "dtype") else v.type


def postponed(node: NodeView, inputs: Sequence[Value | None]) -> tuple[Value, ...]:
    """Add a node that is translated at run time, and return its outputs."""
    body = LateBody(node, inputs, _output_types(node, inputs))
    return tuple(control.call(*body.arguments, body=body))


def _output_types(node: NodeView, inputs: Sequence[Value | None]) -> tuple[ValueType, ...]:
    """Return the types that the standard's inference finds, else unknown ones like the first input's."""
    from onnx import checker, defs, helper, shape_inference

    known = {n: v for n, v in zip(node.proto.input, inputs, strict=True) if n and v is not None}
    try:
        schema = defs.get_schema(node.op_type, node.since_version, node.domain)
        found = shape_inference.infer_node_outputs(
            schema,
            node.proto,
            {n: type_proto(v.type) for n, v in known.items()},
            {n: to_proto(v.array, n) for n, v in known.items() if v.is_constant and v.array.size < 64},
            opset_imports=[helper.make_opsetid(node.domain, node.opset)],
        )
    except (defs.SchemaError, shape_inference.InferenceError, checker.ValidationError):
        found = {}
    first = next((v.type for v in known.values()), None)
    unknown = TensorType(first.dtype, None) if isinstance(first, TensorType) else first
    types = [value_type(found[o], None) if o in found else unknown for o in node.outputs]
    return tuple(t for t in types if t is not None)
