"""Bindings: tensors made of shapes, numbers and ranges."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....ops import create as ops
from ....ops.errors import UnsupportedAttributeError
from ....ops.types import STRING, Array, dtype_name
from ....runtime.graph.graph import Value, current_graph
from ..node import NodeView
from ..registry import binds
from ..tensors import dtype_of


def _constant(array: Array) -> Value:
    graph = current_graph()
    assert graph is not None
    return graph.constant(array)


@binds("Constant", 1, 9, 11, 12, 13, 19, 21, 23, 24, 25)
def constant(node: NodeView) -> Any:
    if node.has("sparse_value"):
        raise UnsupportedAttributeError(f"{node}: sparse_value is not understood; wanted value or value_*")
    for kind, dtype in (("float", np.float32), ("int", np.int64), ("string", STRING)):
        name = f"value_{kind}s" if node.has(f"value_{kind}s") else f"value_{kind}"
        if node.has(name):
            return _constant(np.asarray(node.attr(name), dtype))
    if not node.has("value"):
        raise UnsupportedAttributeError(f"{node}: it has no value")
    return _constant(node.attr("value"))


@binds("Shape", 1, 13, 15, 19, 21, 23, 24, 25)
def shape(node: NodeView, x: Any) -> Any:
    return ops.shape_of(x, start=node.attr("start", 0), end=node.attr("end"))


@binds("Size", 1, 13, 19, 21, 23, 24, 25)
def size(node: NodeView, x: Any) -> Any:
    return ops.size_of(x)


@binds("ConstantOfShape", 9, 20, 21, 23, 24, 25)
def constant_of_shape(node: NodeView, shape: Any) -> Any:
    value = node.attr("value")
    array = np.zeros(1, np.float32) if value is None else np.asarray(value)
    if array.size != 1:
        raise UnsupportedAttributeError(f"{node}: value has {array.size} elements, wanted 1")
    item = array.reshape(-1)[0]
    plain = item.item() if array.dtype.kind in "fiubc" else item if array.dtype == STRING else float(item)
    return ops.fill(shape, value=plain, dtype=dtype_name(array.dtype))


@binds("Range", 11, 27)
@binds("Range", 1, domain="com.microsoft")
def range_(node: NodeView, start: Any, limit: Any, delta: Any = None) -> Any:
    if node.attr("stash_type", 1) != 1:
        raise UnsupportedAttributeError(f"{node}: stash_type is not 1")
    if delta is None:
        delta = _constant(np.asarray(1, start.dtype))
    if start.is_constant and limit.is_constant and delta.is_constant:
        return _constant(ops.range_.run(start.array, limit.array, delta.array))
    return ops.range_(start, limit, delta)


@binds("EyeLike", 9, 22)
def eye_like(node: NodeView, x: Any) -> Any:
    given = node.attr("dtype")
    dtype = x.dtype if given is None else dtype_of(given)
    return ops.eye_like(x, k=node.attr("k", 0), dtype=dtype_name(dtype))
