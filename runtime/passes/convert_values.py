"""Change the element types of a graph's values, or the device of its constants.

`widen_half` is how float16 and bfloat16 models are imported: NumPy computes half precision one element at a time, and
training needs float32 masters; what the file calls float16 is rounded once, when it leaves the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...ops.types import HALF, Array, DType, OptionalType, SequenceType, TensorType, ValueType
from ..graph.graph import Graph, Value
from .rewriting import PassResult, has_graph, rebuild

WIDEN: Mapping[DType, DType] = {half: np.dtype(np.float32) for half in HALF}


def widen_half(graph: Graph) -> PassResult:
    """Return the graph with float32 in place of half precision; the given graph is left alone if there is none."""
    return convert_dtypes(graph, WIDEN) if _has(graph, WIDEN) else PassResult(graph, 0)


def convert_dtypes(graph: Graph, dtypes: Mapping[DType, DType]) -> PassResult:
    """Return the graph with some element types replaced by others, in values, constants, bodies and conversions."""
    return PassResult(_converted(graph, dtypes, lambda array: array.astype(dtypes.get(array.dtype, array.dtype))), 1)


def move_constants(graph: Graph, move: Callable[[Array], Array]) -> PassResult:
    """Return the graph with every constant array moved, to another device."""
    return PassResult(_converted(graph, {}, move), 1)


def converted_type(t: ValueType, dtypes: Mapping[DType, DType]) -> ValueType:
    """Return the type with element types replaced; the same object where there is nothing to replace."""
    if isinstance(t, TensorType):
        return TensorType(dtypes[t.dtype], t.known_shape) if t.dtype in dtypes else t
    if isinstance(t, SequenceType | OptionalType):
        inner = converted_type(t.element, dtypes)
        return t if inner is t.element else type(t)(inner)
    return t


def _has(graph: Graph, dtypes: Mapping[DType, DType]) -> bool:
    values = [*graph.values(), *(v for n in graph.nodes for v in n.inputs())]
    if any(converted_type(v.type, dtypes) is not v.type for v in values):
        return True
    return any(has_graph(a) and _has(a.graph, dtypes) for n in graph.nodes for a in n.attrs.values())


def _converted(graph: Graph, dtypes: Mapping[DType, DType], move: Callable[[Array], Array]) -> Graph:
    names = {str(old): str(new) for old, new in dtypes.items()}

    def argument(a: Any) -> Any:
        if isinstance(a, list):
            return [argument(v) for v in a]
        if isinstance(a, Value) and a.is_constant:
            moved = copy.copy(a)
            moved.array, moved.type = move(a.array), converted_type(a.type, dtypes)
            return moved
        return a

    new = rebuild(graph, bodies=lambda body: _converted(body, dtypes, move))
    for v in new.values():
        v.type = converted_type(v.type, dtypes)
    for node in new.nodes:
        node.args = tuple(argument(a) for a in node.args)
        node.attrs = {k: names.get(a, a) if isinstance(a, str) else a for k, a in node.attrs.items()}
    new.outputs = [argument(v) for v in new.outputs]
    return new
